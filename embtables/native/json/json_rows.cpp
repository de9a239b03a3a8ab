#include "json/json_rows.h"

#include <charconv>
#include <cstring>

namespace embtables {
namespace {

constexpr std::size_t kMaxBody = 1 << 30;
constexpr std::size_t kMaxColumns = 256;
constexpr std::size_t kMaxName = 256;            // bytes: clients send what they like, and names are compared and kept
constexpr std::size_t kMaxText = 65'536;         // bytes of one string: a longer one is looked at by the slower way
constexpr std::size_t kMaxColumnText = 1 << 30;  // offsets have 32 bits

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

// The length of the UTF-8 sequence at `at`, or 0 (RFC 3629: neither overlong forms nor surrogates).
std::size_t sequence(const char* at, const char* end) {
    const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(at[i]); };
    const auto follows = [&](std::size_t i) { return (byte(i) & 0xC0) == 0x80; };
    const auto left = static_cast<std::size_t>(end - at);
    const std::uint8_t first = byte(0);
    if (first < 0x80) return 1;
    if (first >= 0xC2 && first <= 0xDF) return left >= 2 && follows(1) ? 2 : 0;
    if (first >= 0xE0 && first <= 0xEF) {
        if (left < 3 || !follows(1) || !follows(2)) return 0;
        if (first == 0xE0 && byte(1) < 0xA0) return 0;
        return first == 0xED && byte(1) >= 0xA0 ? 0 : 3;
    }
    if (first < 0xF0 || first > 0xF4 || left < 4 || !follows(1) || !follows(2) || !follows(3)) return 0;
    if (first == 0xF0 && byte(1) < 0x90) return 0;
    return first == 0xF4 && byte(1) >= 0x90 ? 0 : 4;
}

void append_utf8(std::string& out, std::uint32_t code) {
    const auto put = [&](std::uint32_t byte) { out.push_back(static_cast<char>(byte)); };
    if (code < 0x80) return put(code);
    if (code < 0x800) {
        put(0xC0 | (code >> 6));
    } else {
        if (code < 0x10000) {
            put(0xE0 | (code >> 12));
        } else {
            put(0xF0 | (code >> 18));
            put(0x80 | ((code >> 12) & 0x3F));
        }
        put(0x80 | ((code >> 6) & 0x3F));
    }
    put(0x80 | (code & 0x3F));
}

// Reads forward; every function returns false, or nothing, where the text is not what it reads.
class Reader {
 public:
    explicit Reader(std::string_view body) : at_(body.data()), end_(body.data() + body.size()) {}

    bool rows(JsonRows& into) {
        if (!takes('{')) return false;
        bool has_context = false, has_rows = false;
        do {
            std::string_view name;
            if (!plain_string(name) || !takes(':')) return false;
            if (name == "context" && !has_context) {
                has_context = true;
                if (!object(into.context)) return false;
            } else if ((name == "candidates" || name == "rows") && !has_rows) {
                has_rows = true;
                into.is_candidates = name == "candidates";
                if (!array(into)) return false;
            } else if (name == "request_id" && !into.request_id) {
                std::string_view id;
                if (!plain_string(id)) return false;
                into.request_id = id;
            } else {
                return false;
            }
        } while (takes(','));
        if (!takes('}')) return false;
        skip();
        return at_ == end_ && has_rows && (into.is_candidates || !has_context);
    }

 private:
    void skip() {
        while (at_ < end_ && is_space(*at_)) ++at_;
    }

    bool takes(char c) {
        skip();
        if (at_ == end_ || *at_ != c) return false;
        ++at_;
        return true;
    }

    // A string of ASCII without escapes.
    bool plain_string(std::string_view& found) {
        if (!takes('"')) return false;
        const char* begin = at_;
        for (; at_ < end_ && *at_ != '"'; ++at_) {
            if (*at_ == '\\' || static_cast<signed char>(*at_) < 0x20) return false;
        }
        if (at_ == end_) return false;
        found = std::string_view(begin, static_cast<std::size_t>(at_ - begin));
        ++at_;
        return true;
    }

    // An object, whose inside is left to whoever reads it.
    bool object(std::string& found) {
        skip();
        const char* begin = at_;
        if (at_ == end_ || *at_ != '{') return false;
        int depth = 0;
        bool quoted = false;
        for (; at_ < end_; ++at_) {
            const char c = *at_;
            if (quoted) {
                if (c == '\\') {
                    if (++at_ == end_) return false;
                } else if (c == '"') {
                    quoted = false;
                }
            } else if (c == '"') {
                quoted = true;
            } else if (c == '{' || c == '[') {
                ++depth;
            } else if ((c == '}' || c == ']') && --depth == 0) {
                ++at_;
                found.assign(begin, at_);
                return true;
            }
        }
        return false;
    }

    bool array(JsonRows& into) {
        if (!takes('[')) return false;
        do {
            const char* begin = at_;
            if (!takes('{') || !(into.n == 0 ? first_row(into) : next_row(into))) return false;
            if (++into.n == 1) reserve(into, static_cast<std::size_t>(end_ - begin) / static_cast<std::size_t>(at_ - begin));
        } while (takes(','));
        return takes(']');
    }

    // Room for about n rows like the first one.
    static void reserve(JsonRows& into, std::size_t n) {
        for (const auto& column : into.columns) {
            column->valid.reserve(n);
            if (column->kind == JsonColumn::Kind::ints) column->ints.reserve(n);
            if (column->kind == JsonColumn::Kind::floats) column->floats.reserve(n);
            if (column->kind == JsonColumn::Kind::text) column->ends.reserve(n);
        }
    }

    bool first_row(JsonRows& into) {
        do {
            std::string_view name;
            if (into.columns.size() == kMaxColumns || !plain_string(name) || name.size() > kMaxName || !takes(':'))
                return false;
            for (const auto& column : into.columns) {
                if (column->name == name) return false;
            }
            into.columns.push_back(std::make_shared<JsonColumn>());
            into.columns.back()->name = name;
            if (!value(*into.columns.back(), 0)) return false;
        } while (takes(','));
        return takes('}');
    }

    bool next_row(JsonRows& into) {
        bool is_first = true;
        for (const auto& column : into.columns) {
            if ((!is_first && !takes(',')) || !takes('"') || !is_name(column->name) || !takes(':')) return false;
            is_first = false;
            if (!value(*column, into.n)) return false;
        }
        return takes('}');
    }

    bool is_name(const std::string& name) {
        if (static_cast<std::size_t>(end_ - at_) <= name.size() || std::memcmp(at_, name.data(), name.size()) != 0 ||
            at_[name.size()] != '"')
            return false;
        at_ += name.size() + 1;
        return true;
    }

    bool value(JsonColumn& column, std::int64_t row) {
        skip();
        if (at_ == end_) return false;
        const char c = *at_;
        if (c == '"') return text(column, row);
        if (c == 'n') return null(column);
        return (c == '-' || is_digit(c)) && number(column, row);
    }

    bool null(JsonColumn& column) {
        if (end_ - at_ < 4 || std::memcmp(at_, "null", 4) != 0) return false;
        at_ += 4;
        ++column.nulls;
        column.valid.push_back(0);
        using Kind = JsonColumn::Kind;
        if (column.kind == Kind::ints) column.ints.push_back(0);
        if (column.kind == Kind::floats) column.floats.push_back(0.0);
        if (column.kind == Kind::text) column.ends.push_back(static_cast<std::int32_t>(column.text.size()));
        return true;
    }

    bool text(JsonColumn& column, std::int64_t row) {
        if (column.kind == JsonColumn::Kind::none) {
            column.kind = JsonColumn::Kind::text;
            column.ends.assign(static_cast<std::size_t>(row), 0);
        }
        if (column.kind != JsonColumn::Kind::text || column.text.size() > kMaxColumnText) return false;
        const std::size_t before = column.text.size();
        if (!characters(column.text) || column.text.size() - before > kMaxText) return false;
        column.ends.push_back(static_cast<std::int32_t>(column.text.size()));
        column.valid.push_back(1);
        return true;
    }

    bool characters(std::string& out) {
        const char* begin = ++at_;
        while (at_ < end_) {
            const auto c = static_cast<std::uint8_t>(*at_);
            if (c == '"') {
                out.append(begin, at_++);
                return true;
            }
            if (c < 0x20) return false;
            if (c == '\\') {
                out.append(begin, at_++);
                if (!escape(out)) return false;
                begin = at_;
            } else if (c < 0x80) {
                ++at_;
            } else {
                const std::size_t size = sequence(at_, end_);
                if (size == 0) return false;
                at_ += size;
            }
        }
        return false;
    }

    bool escape(std::string& out) {
        if (at_ == end_) return false;
        static constexpr std::string_view names = "\"\\/bfnrt", meant = "\"\\/\b\f\n\r\t";
        const char c = *at_++;
        if (const std::size_t place = names.find(c); place != std::string_view::npos) {
            out.push_back(meant[place]);
            return true;
        }
        std::uint32_t code = 0, low = 0;
        if (c != 'u' || !four_digits(code) || (code >= 0xDC00 && code <= 0xDFFF)) return false;
        if (code >= 0xD800 && code <= 0xDBFF) {
            if (end_ - at_ < 2 || at_[0] != '\\' || at_[1] != 'u') return false;
            at_ += 2;
            if (!four_digits(low) || low < 0xDC00 || low > 0xDFFF) return false;
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        }
        append_utf8(out, code);
        return true;
    }

    bool four_digits(std::uint32_t& code) {
        if (end_ - at_ < 4) return false;
        const auto [end, error] = std::from_chars(at_, at_ + 4, code, 16);
        if (error != std::errc() || end != at_ + 4) return false;
        at_ += 4;
        return true;
    }

    // A number as it was read: its text, and its value mantissa / 10^places if that is known to have been enough.
    struct Number {
        const char* begin;
        std::uint64_t mantissa = 0;
        int places = 0, digits = 0;
        bool is_integer = true, has_exponent = false;
    };

    bool number(JsonColumn& column, std::int64_t row) {
        Number found{at_};
        if (!digits(found)) return false;
        if (column.kind == JsonColumn::Kind::none) {
            column.kind = found.is_integer ? JsonColumn::Kind::ints : JsonColumn::Kind::floats;
            column.ints.assign(found.is_integer ? static_cast<std::size_t>(row) : 0, 0);
            column.floats.assign(found.is_integer ? 0 : static_cast<std::size_t>(row), 0.0);
        }
        if (column.kind == JsonColumn::Kind::text) return false;
        column.valid.push_back(1);
        return found.is_integer ? integer(column, found) : fraction(column, found);
    }

    // Reads the digits of a number as JSON writes them.
    bool digits(Number& found) {
        const auto many = [&] {
            const char* begin = at_;
            for (; at_ < end_ && is_digit(*at_); ++at_) {
                found.mantissa = 10 * found.mantissa + static_cast<std::uint64_t>(*at_ - '0');
            }
            found.digits += static_cast<int>(at_ - begin);
            return static_cast<int>(at_ - begin);
        };
        if (*at_ == '-') ++at_;
        if (at_ < end_ && *at_ == '0') {
            ++at_;
        } else if (many() == 0) {
            return false;
        }
        if (at_ < end_ && *at_ == '.') {
            found.is_integer = false;
            ++at_;
            found.places = many();
            if (found.places == 0) return false;
        }
        if (at_ < end_ && (*at_ == 'e' || *at_ == 'E')) {
            found.is_integer = false;
            found.has_exponent = true;
            ++at_;
            if (at_ < end_ && (*at_ == '+' || *at_ == '-')) ++at_;
            if (many() == 0) return false;
        }
        return true;
    }

    bool integer(JsonColumn& column, const Number& number) {
        std::int64_t found = 0;
        if (std::from_chars(number.begin, at_, found).ec != std::errc()) return false;
        if (column.kind == JsonColumn::Kind::ints) {
            column.ints.push_back(found);
            return true;
        }
        column.is_mixed = true;
        column.floats.push_back(static_cast<double>(found));
        return true;
    }

    bool fraction(JsonColumn& column, const Number& number) {
        double found = 0.0;
        if (!rounded(number, found)) return false;
        if (column.kind == JsonColumn::Kind::ints) {
            column.kind = JsonColumn::Kind::floats;
            column.is_mixed = true;
            column.floats.assign(column.ints.begin(), column.ints.end());
            column.ints.clear();
        }
        column.floats.push_back(found);
        return true;
    }

    // The double next to a number. Both parts of the quotient are exact where they have at most 53 bits and 22 places
    // (Clinger 1990, "How to read floating point numbers accurately"), so that the division rounds once.
    bool rounded(const Number& number, double& found) const {
        static constexpr double tens[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                          1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
        if (!number.has_exponent && number.digits <= 19 && number.mantissa <= std::uint64_t{1} << 53 &&
            number.places <= 22) {
            found = static_cast<double>(number.mantissa) / tens[number.places];
            if (*number.begin == '-') found = -found;
            return true;
        }
        return std::from_chars(number.begin, at_, found).ec == std::errc();
    }

    const char* at_;
    const char* end_;
};

}  // namespace

std::optional<JsonRows> read_json_rows(std::string_view body) {
    if (body.size() > kMaxBody) return std::nullopt;
    JsonRows found;
    return Reader(body).rows(found) ? std::optional(std::move(found)) : std::nullopt;
}

}  // namespace embtables
