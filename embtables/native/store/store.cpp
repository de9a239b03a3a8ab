#include "store/store.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

#include "base/parallel.h"

namespace embtables {
namespace {

constexpr std::int64_t kChunkKeys = 4096, kChunkBags = 256;
constexpr std::size_t kChunkRows = 512;

// Cuts begin..end into pieces of at most `size`.
template <typename F>
void each_piece(std::int64_t begin, std::int64_t end, std::int64_t size, F&& f) {
    for (std::int64_t at = begin; at < end; at += size) f(at, std::min(end, at + size));
}

}  // namespace

TableBytes bytes_of(const TableSpec& spec, std::uint64_t rows, std::uint64_t waiting) {
    const std::uint64_t row = row_bytes(spec.config, spec.is_keyed());
    const std::uint64_t held = rows + (spec.policy ? 1 : 0);  // the cold row
    TableBytes found{row, row * held, 0, 0, CutLog<std::uint32_t>::most_bytes(held)};
    if (spec.keys_of >= 0) return found;
    if (!spec.policy) {
        if (spec.is_keyed()) found.keys = KeyIndex::bytes_of(spec.num_rows);
    } else {
        const Policy& policy = *spec.policy;
        found.keys = KeyMap::bytes_of(rows + (policy.sketch ? 0 : waiting));
        if (policy.sketch) found.counts = CountSketch::bytes_of(policy.max_waiting, policy.min_count);
    }
    return found;
}

Store::Store(const Kernels& kernels, const std::vector<TableSpec>& specs, const std::vector<int>& feature_tables,
             int threads)
    : kernels_(kernels), feature_tables_(feature_tables) {
    for (const TableSpec& spec : specs) add_table(spec, threads);
    for (const Table& table : tables_)
        if (leads(table) && table.spec.policy) make_collisionless(tables_[table.sharing[0]]);
}

void Store::add_table(const TableSpec& spec, int threads) {
    const std::size_t number = tables_.size();
    tables_.push_back({spec, std::make_unique<TableRows>(spec.config, spec.is_keyed(), cut_), nullptr, nullptr, {}, {}});
    Table& table = tables_.back();
    const bool is_part = !spec.buckets.are_all();
    if (table.spec.policy) table.spec.policy->is_part = is_part;
    if (!leads(table)) {
        if (static_cast<std::size_t>(spec.keys_of) >= number || !leads(leader_of(table)) ||
            !table.spec.has_keys_like(leader_of(table).spec))
            throw std::invalid_argument("a table shares the keys of one before it that is like it");
        table.index = leader_of(table).index;
    }
    leader_of(table).sharing.push_back(number);
    if (table.spec.policy) return;
    if (is_part && leads(table))
        table.index = std::make_shared<KeyIndex>(spec.num_rows, spec.config.initial.seed, spec.buckets, threads);
    make_fixed_rows(table, threads);
}

// Of a collisionless table and those that share its keys, whose rows are new.
void Store::make_collisionless(Table& leader) {
    leader.keys = std::make_shared<Collisionless>(leader.spec.policy.value(), *leader.rows);
    for (const std::size_t number : leader.sharing) {
        if (number != leader.sharing[0]) leader.keys->share_with(*tables_[number].rows);
        tables_[number].keys = leader.keys;
    }
}

void Store::make_fixed_rows(Table& table, int threads) const {
    TableRows& rows = *table.rows;
    const auto make = [&](std::int64_t key, std::uint32_t row) {
        rows.reset(row, key);
        rows.meta()[row].cut = cut_;
    };
    if (table.index) {
        rows.reserve(table.index->num_rows());
        return parallel_for(table.index->num_chunks(), threads, [&](std::size_t c) { table.index->each(c, make); });
    }
    const std::uint64_t all = table.spec.num_rows;
    rows.reserve(all);
    parallel_for((all + kChunkRows - 1) / kChunkRows, threads, [&](std::size_t c) {
        const std::uint64_t end = std::min<std::uint64_t>(all, (c + 1) * kChunkRows);
        for (std::uint64_t row = c * kChunkRows; row < end; ++row)
            make(static_cast<std::int64_t>(row), static_cast<std::uint32_t>(row));
    });
}

std::uint64_t Store::num_rows(int table) const {
    const Table& t = tables_.at(static_cast<std::size_t>(table));
    return t.keys ? t.keys->rows_in_use() : t.index ? t.index->num_rows() : t.spec.num_rows;
}

void Store::clear(int table) {
    Table& t = leader_of(tables_.at(static_cast<std::size_t>(table)));
    for (const std::size_t number : t.sharing)
        tables_[number].rows = std::make_unique<TableRows>(tables_[number].spec.config, true, cut_);
    make_collisionless(t);
    if (cut_ > 1) t.keys->lost().begin_anew(cut_);
}

std::uint32_t Store::draw_cut() {
    if (cut_ == std::numeric_limits<std::uint32_t>::max()) throw std::length_error("cut numbers end at 2^32");
    const std::uint32_t drawn = cut_++;
    for (const Table& table : tables_) {
        table.rows->begin_cut(cut_);
        if (table.keys && leads(table)) table.keys->lost().begin(cut_);
    }
    return drawn;
}

void Store::forget(std::uint32_t cut) {
    for (const Table& table : tables_) {
        table.rows->forget(cut);
        if (table.keys && leads(table)) table.keys->lost().forget(cut);
    }
}

void Store::make(int table, const std::int64_t* keys, std::size_t n) {
    Table& t = tables_.at(static_cast<std::size_t>(table));
    for (std::size_t i = 0; i < n && t.keys; ++i) {
        std::uint32_t row = 0;
        if (t.keys->make_row(keys[i], row))
            for (const std::size_t number : leader_of(t).sharing) tables_[number].rows->reset(row, keys[i]);
        see(table, &row, 1);
    }
}

// What was saved with the table whose keys it shares has been placed with that one: then every key is found.
void Store::place(int table, const std::int64_t* keys, const std::uint32_t* seen, std::size_t n, int threads,
                  std::uint32_t* rows) {
    Table& t = tables_.at(static_cast<std::size_t>(table));
    if (!leads(t)) {
        find(table, keys, n, threads, rows);
        if (std::find(rows, rows + n, 0u) == rows + n) return t.rows->place(rows, keys, seen, n, threads);
    }
    t.keys->place(*t.rows, keys, seen, n, threads, rows);
}

void Store::make_fresh(int table, const std::uint32_t* rows, std::size_t n) {
    TableRows& of = this->rows(table);
    for (std::size_t i = 0; i < n; ++i)
        of.reset(rows[i], of.is_keyed() ? of.arrays().keys[rows[i]] : static_cast<std::int64_t>(rows[i]));
    see(table, rows, n);
}

void Store::see(int table, const std::uint32_t* rows, std::size_t n) {
    Table& t = tables_.at(static_cast<std::size_t>(table));
    const std::uint32_t now = t.keys ? t.keys->now() : 0;
    for (std::size_t i = 0; i < n; ++i) t.rows->see(rows[i], now);
}

RowFilter Store::filter_of(const Table& table, std::uint32_t after, std::uint32_t now) const {
    return {after, now, table.spec.policy ? table.spec.policy->ttl_seconds : kForever};
}

KeyList Store::list_rows(int table, std::uint32_t after, int threads) const {
    const Table& t = tables_.at(static_cast<std::size_t>(table));
    const bool is_logged = after != 0 && t.rows->touched().knows(after);
    const std::vector<std::uint32_t> touched = is_logged ? t.rows->touched().since(after) : std::vector<std::uint32_t>{};
    return embtables::list_rows(t.rows->arrays(), t.keys ? 1 : 0, num_rows(table), is_logged ? &touched : nullptr,
                                filter_of(t, after, t.keys ? t.keys->now() : 0), t.spec.config.initial.seed, threads);
}

KeyList Store::list_rows(int table, RowImage& image, std::uint32_t now, int threads) {
    const Table& t = tables_.at(static_cast<std::size_t>(table));
    const RowFilter filter = filter_of(t, 0, now);
    std::vector<std::vector<Listed>> pieces;
    image.begin_listing();
    turns_.in_slices([&] {
        if (image.is_abandoned()) throw std::invalid_argument("the capture was closed while it was read");
        return image.list_some(t.spec.policy ? 1 : 0, filter, pieces);
    });
    return in_bucket_order(pieces, t.spec.config.initial.seed, threads);
}

void Store::resolve(const LookupView& lookup, const std::int64_t* keys, bool train, int threads,
                    std::uint32_t* rows) {
    std::vector<Span> fixed, collisionless, sharing;
    for (std::size_t s = 0; s < lookup.num_features; ++s) {
        const auto table = static_cast<std::size_t>(table_of(lookup.features[s]));
        const std::int64_t begin = lookup.bags_of(s)[0], end = lookup.bags_of(s)[lookup.num_bags];
        if (tables_[table].keys)
            (leads(tables_[table]) ? collisionless : sharing).push_back({table, begin, end});
        else
            each_piece(begin, end, kChunkKeys, [&](std::int64_t a, std::int64_t b) { fixed.push_back({table, a, b}); });
    }
    parallel_for(fixed.size(), threads, [&](std::size_t i) { resolve_fixed(fixed[i], keys, rows); });
    if (!collisionless.empty()) resolve_collisionless(collisionless, keys, lookup.counts, train, threads, rows);
    if (!sharing.empty()) resolve_collisionless(sharing, keys, nullptr, false, threads, rows);
}

void Store::find(int table, const std::int64_t* keys, std::size_t n, int threads, std::uint32_t* rows) const {
    const auto t = static_cast<std::size_t>(table);
    std::vector<Span> pieces;
    each_piece(0, static_cast<std::int64_t>(n), kChunkKeys,
               [&](std::int64_t a, std::int64_t b) { pieces.push_back({t, a, b}); });
    const Collisionless* const collisionless = tables_.at(t).keys.get();
    parallel_for(pieces.size(), threads, [&](std::size_t p) {
        const Span& piece = pieces[p];
        if (collisionless == nullptr)
            resolve_fixed(piece, keys, rows);
        else
            kernels_.find(collisionless->find_work(keys + piece.begin, static_cast<std::size_t>(piece.end - piece.begin),
                                                   false, rows + piece.begin));
    });
}

void Store::resolve_fixed(const Span& span, const std::int64_t* keys, std::uint32_t* rows) const {
    const Table& table = tables_[span.table];
    if (table.index) {
        const auto n = static_cast<std::size_t>(span.end - span.begin);
        if (kernels_.rank(table.index->work(keys + span.begin, n, rows + span.begin)) == 0) return;
        return refuse(table, keys[std::find(rows + span.begin, rows + span.end, kMissed) - rows]);
    }
    const std::uint64_t limit = table.spec.num_rows;
    bool outside = false;
    for (std::int64_t i = span.begin; i < span.end; ++i) {
        rows[i] = static_cast<std::uint32_t>(keys[i]);
        outside |= static_cast<std::uint64_t>(keys[i]) >= limit;
    }
    if (!outside) return;
    for (std::int64_t i = span.begin;; ++i)
        if (static_cast<std::uint64_t>(keys[i]) >= limit) refuse(table, keys[i]);
}

void Store::refuse(const Table& table, std::int64_t key) const {
    const std::string name = "key " + std::to_string(key);
    if (static_cast<std::uint64_t>(key) >= table.spec.num_rows)
        throw std::out_of_range(name + " is outside 0.." + std::to_string(table.spec.num_rows - 1) +
                                ": keys of a fixed table are row indices");
    const Buckets& own = table.spec.buckets;
    throw std::out_of_range(name + " is of bucket " + std::to_string(bucket_of(key, table.spec.config.initial.seed)) +
                            ", this part holds " + std::to_string(own.first) + ".." + std::to_string(own.end - 1));
}

void Store::resolve_collisionless(const std::vector<Span>& spans, const std::int64_t* keys, const std::int32_t* counts,
                                  bool train, int threads, std::uint32_t* rows) {
    std::vector<Span> pieces;
    for (const Span& span : spans)
        each_piece(span.begin, span.end, kChunkKeys,
                   [&](std::int64_t a, std::int64_t b) { pieces.push_back({span.table, a, b}); });
    std::vector<std::size_t> missed(pieces.size());
    parallel_for(pieces.size(), threads, [&](std::size_t p) {
        const Span& piece = pieces[p];
        missed[p] = kernels_.find(tables_[piece.table].keys->find_work(
            keys + piece.begin, static_cast<std::size_t>(piece.end - piece.begin), train, rows + piece.begin));
    });
    if (!train) return;
    parallel_for(tables_.size(), threads, [&](std::size_t t) {
        if (!tables_[t].keys || !leads(tables_[t])) return;
        std::vector<Span> with_missed;
        for (std::size_t p = 0; p < pieces.size(); ++p)
            if (pieces[p].table == t && (missed[p] != 0 || tables_[t].keys->is_bounded())) with_missed.push_back(pieces[p]);
        admit_missed(tables_[t], with_missed, keys, counts, rows);
    });
    reset_fresh(threads);
}

// The rows of keys that were admitted, in each table that has these keys.
void Store::reset_fresh(int threads) {
    std::vector<Span> resets;
    for (std::size_t t = 0; t < tables_.size(); ++t)
        each_piece(0, static_cast<std::int64_t>(leader_of(tables_[t]).missed.fresh.size()), kChunkRows,
                   [&](std::int64_t a, std::int64_t b) { resets.push_back({t, a, b}); });
    parallel_for(resets.size(), threads, [&](std::size_t r) {
        const Span& span = resets[r];
        Table& table = tables_[span.table];
        const std::vector<FreshRow>& fresh = leader_of(table).missed.fresh;
        for (std::int64_t i = span.begin; i < span.end; ++i) table.rows->reset(fresh[i].row, fresh[i].key);
    });
}

// A key is counted over all features of the lookup before any of them reads it: a table's misses are admitted by one
// thread, in the order of the lookup.
void Store::admit_missed(Table& table, const std::vector<Span>& pieces, const std::int64_t* keys,
                         const std::int32_t* counts, std::uint32_t* rows) {
    Missed& missed = table.missed;
    missed.places.clear();
    missed.keys.clear();
    missed.counts.clear();
    missed.fresh.clear();
    for (const Span& piece : pieces) {
        if (table.keys->is_bounded()) table.keys->note(rows + piece.begin, static_cast<std::size_t>(piece.end - piece.begin));
        for (std::int64_t i = piece.begin; i < piece.end; ++i)
            if (rows[i] == kMissed) {
                missed.places.push_back(i);
                missed.keys.push_back(keys[i]);
                if (counts != nullptr) missed.counts.push_back(counts[i]);
            }
    }
    missed.rows.resize(missed.keys.size());
    if (missed.keys.empty()) return;
    table.keys->admit(missed.keys.data(), counts == nullptr ? nullptr : missed.counts.data(), missed.keys.size(),
                      missed.rows.data(), missed.fresh);
    for (std::size_t i = 0; i < missed.places.size(); ++i) rows[missed.places[i]] = missed.rows[i];
}

std::vector<int> Store::columns(const LookupView& lookup) const {
    std::vector<int> found{0};
    for (std::size_t s = 0; s < lookup.num_features; ++s)
        found.push_back(found.back() + tables_[table_of(lookup.features[s])].spec.config.dim);
    return found;
}

std::size_t Store::width(const LookupView& lookup) const { return static_cast<std::size_t>(columns(lookup).back()); }

void Store::pooled(const LookupView& lookup, const std::uint32_t* rows, int threads, float* out) const {
    const std::vector<int> column = columns(lookup);
    std::vector<PooledWork> work;
    for (std::size_t s = 0; s < lookup.num_features; ++s) {
        const TableRows& table = *tables_[table_of(lookup.features[s])].rows;
        const std::int64_t* const offsets = lookup.bags_of(s);
        each_piece(0, lookup.num_bags, kChunkBags, [&](std::int64_t a, std::int64_t b) {
            work.push_back({table.weight(), table.config().dim, table.stride(), rows, offsets, lookup.weights, a,
                            b, out + column[s], column.back(), table.weight_scale()});
        });
    }
    parallel_for(work.size(), threads, [&](std::size_t p) { kernels_.rows->pooled(work[p]); });
}

void Store::dots(const LookupView& lookup, const std::uint32_t* rows, const float* gradient, int threads,
                 float* out) const {
    const std::vector<int> column = columns(lookup);
    std::vector<DotWork> work;
    for (std::size_t s = 0; s < lookup.num_features; ++s) {
        const TableRows& table = *tables_[table_of(lookup.features[s])].rows;
        const std::int64_t* const offsets = lookup.bags_of(s);
        each_piece(0, lookup.num_bags, kChunkBags, [&](std::int64_t a, std::int64_t b) {
            work.push_back({table.weight(), table.config().dim, table.stride(), rows, offsets, a, b,
                            gradient + column[s], column.back(), out, table.weight_scale()});
        });
    }
    parallel_for(work.size(), threads, [&](std::size_t p) { kernels_.rows->dots(work[p]); });
}

void Store::gather(const SegmentsView& segments, const std::uint32_t* rows, int threads, float* message) const {
    std::vector<GatherWork> work;
    for (std::size_t i = 0; i < segments.num_features * segments.per_feature; ++i) {
        const TableRows& table = *tables_[table_of(segments.features[i / segments.per_feature])].rows;
        const std::int64_t begin = segments.bounds[i];
        each_piece(0, segments.bounds[i + 1] - begin, kChunkKeys, [&](std::int64_t a, std::int64_t b) {
            work.push_back({table.weight(), table.config().dim, table.stride(), rows + begin, a, b,
                            message + segments.places[i], table.weight_scale()});
        });
    }
    parallel_for(work.size(), threads, [&](std::size_t p) { kernels_.rows->gather(work[p]); });
}

std::vector<KeptTable> Store::by_table(const std::vector<KeptGradients>& kept) {
    std::vector<KeptTable> found;
    for (const Table& table : tables_)
        found.push_back({table.rows.get(), table.keys && !table.spec.cold_row_learns ? 1u : 0u,
                         table.keys ? table.keys->now() : 0, {}});
    space_.learning.clear();
    for (const KeptGradients& k : kept) std::visit([&](const auto& one) { add(one, found); }, k);
    return found;
}

void Store::add(const KeptLookup& k, std::vector<KeptTable>& tables) const {
    const std::vector<int> column = columns(k.lookup);
    for (std::size_t s = 0; s < k.lookup.num_features; ++s)
        tables[table_of(k.lookup.features[s])].features.push_back({k.rows, k.lookup.bags_of(s), k.lookup.weights,
                                                                   k.lookup.num_bags, k.gradient + column[s],
                                                                   column.back(), nullptr});
}

// Every key is a bag of its own.
void Store::add(const KeptSegments& k, std::vector<KeptTable>& tables) {
    const SegmentsView& segments = k.segments;
    std::int64_t longest = 0;
    for (std::size_t i = 0; i < segments.num_features * segments.per_feature; ++i)
        longest = std::max(longest, segments.bounds[i + 1] - segments.bounds[i]);
    const std::int64_t* const numbers = space_.numbers(longest + 1);
    for (std::size_t i = 0; i < segments.num_features * segments.per_feature; ++i) {
        if (segments.places[i] < 0) continue;
        const std::int64_t begin = segments.bounds[i], n = segments.bounds[i + 1] - begin;
        const auto number = static_cast<std::size_t>(table_of(segments.features[i / segments.per_feature]));
        const Table& table = tables_[number];
        KeptFeature feature{k.rows + begin, numbers, nullptr, n, k.message + segments.places[i], table.spec.config.dim,
                            k.times == nullptr ? nullptr : k.times + begin};
        const bool leaves_cold = table.keys && table.spec.policy->is_part && table.spec.cold_row_learns;
        if (leaves_cold && std::find(feature.rows, feature.rows + n, 0u) != feature.rows + n)
            space_.learning.emplace_back(feature);
        tables[number].features.push_back(feature);
    }
}

double Store::gradient_norm(const std::vector<KeptGradients>& kept, int threads) {
    return Step(*kernels_.rows, threads, by_table(kept), space_).norm();
}

std::vector<UpdateCounts> Store::update(const std::vector<KeptGradients>& kept, double factor, float scale,
                                        int threads) {
    return Step(*kernels_.rows, threads, by_table(kept), space_).update(factor, scale);
}

}  // namespace embtables
