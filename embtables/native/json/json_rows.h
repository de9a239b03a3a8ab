// A request's rows in JSON -> columns, in one pass and without an object for each value.
//
//     {"context": {...}, "candidates": [{"price": 1.5, "code": "A1"}, ...]}   or   {"rows": [{...}, ...]}
//
// Only what most requests are is read: rows that all have the same names in the same order, whose values are numbers,
// strings and nulls. Of anything else, faults included, nothing is read: whoever asked takes the slower way, which
// reads all of JSON and says what is wrong. What is read is read as that way reads it: numbers are correctly rounded,
// strings are checked UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace embtables {

// n values. `ints` holds them as long as all are integers of 64 bits, `floats` once one has a fraction or an exponent.
struct JsonColumn {
    enum class Kind : std::uint8_t { none, ints, floats, text };

    std::string name;
    Kind kind = Kind::none;
    bool is_mixed = false;  // integers beside numbers with a fraction
    std::int64_t nulls = 0;
    std::vector<std::uint8_t> valid;  // a byte each
    std::vector<std::int64_t> ints;
    std::vector<double> floats;
    std::vector<std::int32_t> ends;  // of strings: where each ends in `text`
    std::string text;
};

struct JsonRows {
    std::string context;  // the object as it was sent; empty if there is none
    std::optional<std::string> request_id;
    bool is_candidates = false;  // or rows
    std::int64_t n = 0;
    std::vector<std::shared_ptr<JsonColumn>> columns;
};

// The rows of a body; nothing if it is not as above.
std::optional<JsonRows> read_json_rows(std::string_view body);

}  // namespace embtables
