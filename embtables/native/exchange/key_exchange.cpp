#include "exchange/key_exchange.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <stdexcept>
#include <utility>

#include "base/mix.h"
#include "base/parallel.h"

namespace embtables {
namespace {

constexpr std::int64_t kPieceKeys = 2048, kPieceBags = 256;
constexpr int kBucketShift = 54;  // the top ten bits

// Numbers of keys by key: open addressing, at most half full.
class Numbers {
public:
    explicit Numbers(std::size_t most)
        : places_(std::bit_ceil(std::max<std::size_t>(16, 2 * most))), mask_(places_.size() - 1) {}

    // The key's number; `next`, which is then taken, where it has none.
    std::uint32_t find(std::int64_t key, std::uint64_t h, std::uint32_t next) {
        for (std::size_t i = h & mask_;; i = (i + 1) & mask_) {
            Place& place = places_[i];
            if (place.number == 0) {
                place = {key, next + 1};
                return next;
            }
            if (place.key == key) return place.number - 1;
        }
    }

    void prefetch(std::uint64_t h) const { __builtin_prefetch(&places_[h & mask_], 1); }

private:
    struct Place {
        std::int64_t key = 0;
        std::uint32_t number = 0;  // plus one; 0: empty
    };
    std::vector<Place> places_;
    std::size_t mask_;
};

template <typename F>
void each_piece(std::int64_t begin, std::int64_t end, std::int64_t size, F&& f) {
    for (std::int64_t at = begin; at < end; at += size) f(at, std::min(end, at + size));
}

}  // namespace

KeyExchange::KeyExchange(const RowKernels& kernels, std::vector<ExchangeBlock> blocks, const LookupView& lookup,
                         const std::int32_t* block_of_feature, const std::int64_t* keys, const std::uint16_t* owners,
                         int ranks, int header, int threads)
    : kernels_(kernels),
      blocks_(std::move(blocks)),
      features_of_(blocks_.size()),
      ranks_(static_cast<std::size_t>(ranks)),
      header_(static_cast<std::size_t>(header)) {
    for (std::size_t s = 0; s < lookup.num_features; ++s) {
        const auto block = static_cast<std::size_t>(block_of_feature[s]);
        const std::int64_t* const own = lookup.offsets + s * lookup.num_bags;
        features_.push_back({block, own[0], own[lookup.num_bags], width_});
        features_of_[block].push_back(s);
        width_ += static_cast<std::size_t>(blocks_[block].dim);
    }
    const auto occurrences = static_cast<std::size_t>(lookup.offsets[lookup.num_features * lookup.num_bags]);
    if (occurrences >= std::numeric_limits<std::uint32_t>::max())
        throw std::length_error("more keys in one lookup than 2^32; use smaller batches");
    numbers_.resize(occurrences);
    places_.resize(occurrences);
    std::vector<Distinct> found(blocks_.size());
    parallel_for(blocks_.size(), threads, [&](std::size_t b) { found[b] = find_distinct(b, keys, owners); });
    lay_out(found);
    parallel_for(blocks_.size(), threads, [&](std::size_t b) { number(b, found[b]); });
}

KeyExchange::Distinct KeyExchange::find_distinct(std::size_t block, const std::int64_t* keys,
                                                 const std::uint16_t* owners) {
    constexpr std::int64_t kAhead = 8;
    Distinct found;
    found.by_rank.assign(ranks_, 0);
    const int holder = blocks_[block].holder;
    std::size_t most = 0;
    for (const std::size_t s : features_of_[block]) most += static_cast<std::size_t>(features_[s].end - features_[s].begin);
    Numbers numbers(most);
    const std::uint64_t salt = (blocks_[block].seed + 1) * kGoldenGamma;
    const auto mixed = [&](std::int64_t key) { return mix(static_cast<std::uint64_t>(key) + salt); };
    for (const std::size_t s : features_of_[block])
        for (std::int64_t i = features_[s].begin; i < features_[s].end; ++i) {
            if (i + kAhead < features_[s].end) numbers.prefetch(mixed(keys[i + kAhead]));
            const std::uint64_t h = mixed(keys[i]);
            const std::uint32_t n = numbers.find(keys[i], h, static_cast<std::uint32_t>(found.keys.size()));
            numbers_[i] = n;
            if (n == found.keys.size()) {
                found.keys.push_back(keys[i]);
                found.counts.push_back(0);
                found.owners.push_back(holder < 0 ? owners[h >> kBucketShift] : static_cast<std::uint16_t>(holder));
                ++found.by_rank[found.owners.back()];
            }
            ++found.counts[n];
        }
    return found;
}

// Where each (rank, block) begins, among the keys and in a message with their rows.
void KeyExchange::lay_out(const std::vector<Distinct>& found) {
    std::int64_t key = 0;
    for (std::size_t r = 0; r < ranks_; ++r) {
        num_floats_ += header_;
        for (std::size_t b = 0; b < blocks_.size(); ++b) {
            const std::int64_t n = found[b].by_rank[r];
            sizes_.push_back(n);
            first_key_.push_back(key);
            first_float_.push_back(num_floats_);
            key += n;
            num_floats_ += static_cast<std::size_t>(n) * static_cast<std::size_t>(blocks_[b].dim);
        }
    }
    if (num_floats_ > std::numeric_limits<std::uint32_t>::max())
        throw std::length_error("rows of one lookup take more than 16 GB; use smaller batches");
    keys_.resize(static_cast<std::size_t>(key));
    counts_.resize(static_cast<std::size_t>(key));
}

void KeyExchange::number(std::size_t block, const Distinct& found) {
    struct Place {
        std::uint32_t number, row;
    };
    std::vector<std::int64_t> taken(ranks_, 0);
    std::vector<Place> places;
    places.reserve(found.keys.size());
    const auto dim = static_cast<std::size_t>(blocks_[block].dim);
    for (std::size_t i = 0; i < found.keys.size(); ++i) {
        const std::size_t rank = found.owners[i];
        const std::int64_t own = taken[rank]++;
        const std::int64_t n = first_key_[at(rank, block)] + own;
        keys_[n] = found.keys[i];
        counts_[n] = found.counts[i];
        const std::size_t row = first_float_[at(rank, block)] + static_cast<std::size_t>(own) * dim;
        places.push_back({static_cast<std::uint32_t>(n), static_cast<std::uint32_t>(row)});
    }
    for (const std::size_t s : features_of_[block])
        for (std::int64_t i = features_[s].begin; i < features_[s].end; ++i) {
            const Place place = places[numbers_[i]];
            numbers_[i] = place.number;
            places_[i] = place.row;
        }
}

void KeyExchange::pooled(const float* rows, const LookupView& lookup, int threads, float* out) const {
    std::vector<PooledWork> work;
    for (std::size_t s = 0; s < features_.size(); ++s)
        each_piece(0, lookup.num_bags, kPieceBags, [&](std::int64_t a, std::int64_t b) {
            work.push_back({rows, dim(s), 1, places_.data(), lookup.offsets + s * lookup.num_bags, lookup.weights,
                             a, b, out + features_[s].column, static_cast<std::int64_t>(width_)});
        });
    parallel_for(work.size(), threads, [&](std::size_t p) { kernels_.pooled(work[p]); });
}

void KeyExchange::gather(const float* rows, std::size_t feature, int threads, float* out) const {
    std::vector<GatherWork> work;
    each_piece(0, size(feature), kPieceKeys, [&](std::int64_t a, std::int64_t b) {
        work.push_back({rows, dim(feature), 1, places_.data() + features_[feature].begin, a, b, out});
    });
    parallel_for(work.size(), threads, [&](std::size_t p) { kernels_.gather(work[p]); });
}

void KeyExchange::dots(const float* rows, const LookupView& lookup, const float* gradient, int threads,
                       float* out) const {
    std::vector<DotWork> work;
    for (std::size_t s = 0; s < features_.size(); ++s)
        each_piece(0, lookup.num_bags, kPieceBags, [&](std::int64_t a, std::int64_t b) {
            work.push_back({rows, dim(s), 1, places_.data(), lookup.offsets + s * lookup.num_bags, a, b,
                             gradient + features_[s].column, static_cast<std::int64_t>(width_), out});
        });
    parallel_for(work.size(), threads, [&](std::size_t p) { kernels_.dots(work[p]); });
}

// The transpose of a pooled lookup: a bag is a key, and its members are where the gradients of its occurrences lie.
// place(feature, f) calls f(occurrence, first float of its gradient after the base of its block) for all of a feature.
template <typename F>
void KeyExchange::sum(const std::vector<const float*>& bases, const float* weights, int threads, float* rows,
                      F&& place) const {
    std::vector<std::int64_t> starts(keys_.size() + 1, 0);
    for (std::size_t i = 0; i < keys_.size(); ++i) starts[i + 1] = starts[i] + counts_[i];
    std::vector<std::int64_t> next(starts.begin(), starts.end() - 1);
    std::vector<std::uint32_t> members(numbers_.size());
    std::vector<float> factors(weights == nullptr ? 0 : numbers_.size());
    parallel_for(blocks_.size(), threads, [&](std::size_t b) {
        if (bases[b] == nullptr) return;
        for (const std::size_t s : features_of_[b])
            place(s, [&](std::int64_t i, std::uint32_t from) {
                const std::int64_t to = next[numbers_[i]]++;
                members[to] = from;
                if (weights != nullptr) factors[to] = weights[i];
            });
    });
    std::vector<PooledWork> work;
    for (std::size_t r = 0; r < ranks_; ++r)
        for (std::size_t b = 0; b < blocks_.size(); ++b) {
            if (bases[b] == nullptr) continue;
            each_piece(0, sizes_[at(r, b)], kPieceKeys, [&](std::int64_t begin, std::int64_t end) {
                work.push_back({bases[b], blocks_[b].dim, 1, members.data(), starts.data() + first_key_[at(r, b)],
                                 weights == nullptr ? nullptr : factors.data(), begin, end,
                                 rows + first_float_[at(r, b)], blocks_[b].dim});
            });
        }
    parallel_for(work.size(), threads, [&](std::size_t p) { kernels_.pooled(work[p]); });
}

void KeyExchange::sum_pooled(const float* gradient, const LookupView& lookup, int threads, float* rows) const {
    if (static_cast<std::uint64_t>(lookup.num_bags) * width_ > std::numeric_limits<std::uint32_t>::max())
        throw std::length_error("the gradient of one lookup takes more than 16 GB; use smaller batches");
    const std::vector<const float*> bases(blocks_.size(), gradient);
    sum(bases, lookup.weights, threads, rows, [&](std::size_t s, auto&& f) {
        const std::int64_t* const offsets = lookup.offsets + s * lookup.num_bags;
        for (std::int64_t bag = 0; bag < lookup.num_bags; ++bag)
            for (std::int64_t i = offsets[bag]; i < offsets[bag + 1]; ++i)
                f(i, static_cast<std::uint32_t>(static_cast<std::size_t>(bag) * width_ + features_[s].column));
    });
}

void KeyExchange::sum_gathered(const std::vector<const float*>& gradients, int threads, float* rows) const {
    std::vector<const float*> bases(blocks_.size(), nullptr);
    for (std::size_t s = 0; s < features_.size(); ++s) bases[features_[s].block] = gradients[s];
    sum(bases, nullptr, threads, rows, [&](std::size_t s, auto&& f) {
        for (std::int64_t i = features_[s].begin; i < features_[s].end; ++i)
            f(i, static_cast<std::uint32_t>(static_cast<std::size_t>(i - features_[s].begin) *
                                            static_cast<std::size_t>(dim(s))));
    });
}

}  // namespace embtables
