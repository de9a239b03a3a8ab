// Instruction sets the native core is compiled for, and which of them this processor has.
#pragma once

#include <string>
#include <vector>

namespace embtables {

enum class Isa { scalar, avx2, avx512 };

// The instruction sets that this build holds and this processor can run, slowest first.
std::vector<Isa> available_isas();

const char* isa_name(Isa isa);

// Throws std::invalid_argument, naming the available ones, where `name` is none of them.
Isa isa_from_name(const std::string& name);

}  // namespace embtables
