// Reads damaged requests without Python, for the sanitizers (`make sanitize`): each body lies in a block of just its size.
// Ends with status 1 where columns that were read do not belong together.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "json/json_rows.h"
#include "strings/split.h"

using namespace embtables;

namespace {

constexpr int kBodies = 300'000;
constexpr std::string_view kRequests[] = {
    R"({"context": {"user": 7, "near": [1, 2], "text": "a\"}{"}, "candidates": [{"a": 1.5, "b": "x", "c": null},)"
    R"( {"a": -2, "b": "\u00e9\ud83d\ude00\n", "c": 3}, {"a": 1e-7, "b": "é", "c": -9223372036854775808}]})",
    R"({"rows":[{"a":1,"b":0.1},{"a":null,"b":12345678901234567890.5},{"a":2.5,"b":1E+300}],"request_id":"r-1"})",
    R"({"candidates": [ {"a" : "" } , { "a" : "\\\/\b\f" } ] })",
};
constexpr std::string_view kPieces[] = {"\"", "\\", "{", "}", "[", "]", ",", ":", "-", ".", "e", "0", "9", "\\u", "\\ud83d",
                                        "null", "nul", "\xc3", "\xf0\x9f", "\n", " ", "{\"a\":1},"};

void need(bool right, const char* what) {
    if (right) return;
    std::fprintf(stderr, "wrong: %s\n", what);
    std::exit(1);
}

std::string damaged(std::mt19937& random) {
    std::string body(kRequests[random() % std::size(kRequests)]);
    for (auto changes = random() % 4; changes > 0; --changes) {
        const std::size_t at = random() % (body.size() + 1);
        switch (random() % 3) {
            case 0: body.resize(at); break;
            case 1: body.insert(at, kPieces[random() % std::size(kPieces)]); break;
            default: body.erase(at, random() % 6);
        }
    }
    return body;
}

// Whether the rows of a body were read.
bool read(std::string_view body) {
    const std::unique_ptr<char[]> exact(new char[body.size()]);
    body.copy(exact.get(), body.size());
    const std::optional<JsonRows> found = read_json_rows({exact.get(), body.size()});
    if (!found) return false;
    const auto n = static_cast<std::size_t>(found->n);
    need(n > 0 && !found->columns.empty(), "rows without columns were read");
    for (const auto& column : found->columns) {
        using Kind = JsonColumn::Kind;
        need(column->valid.size() == n, "a column has as many values as there are rows");
        need(column->ints.size() == (column->kind == Kind::ints ? n : 0), "integers");
        need(column->floats.size() == (column->kind == Kind::floats ? n : 0), "numbers");
        need(column->ends.size() == (column->kind == Kind::text ? n : 0), "strings");
        need(column->ends.empty() || static_cast<std::size_t>(column->ends.back()) == column->text.size(), "text");
    }
    return true;
}

void split(std::mt19937& random) {
    std::vector<std::uint8_t> data(random() % 20);
    for (auto& byte : data) byte = "ab|"[random() % 3];
    std::vector<std::int32_t> offsets{0};
    while (offsets.back() < static_cast<std::int32_t>(data.size()))
        offsets.push_back(std::min<std::int32_t>(offsets.back() + static_cast<std::int32_t>(random() % 6),
                                                 static_cast<std::int32_t>(data.size())));
    const Pieces found = split_strings(data.data(), offsets.data(), offsets.size() - 1, random() % 2 ? "|" : "a|");
    need(found.starts.size() == offsets.size() && found.offsets.size() == static_cast<std::size_t>(found.starts.back()) + 1,
         "pieces and strings belong together");
}

}  // namespace

int main() {
    std::mt19937 random(1);
    for (const std::string_view body : kRequests) need(read(body), "a good request was not read");
    int good = 0;
    for (int i = 0; i < kBodies; ++i) {
        good += read(damaged(random));
        split(random);
    }
    std::printf("requests: %d bodies, %d of them read\n", kBodies, good);
}
