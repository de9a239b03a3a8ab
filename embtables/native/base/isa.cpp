#include "base/isa.h"

#include <stdexcept>

namespace embtables {

std::vector<Isa> available_isas() {
    std::vector<Isa> found{Isa::scalar};
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")) {
        found.push_back(Isa::avx2);
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
            found.push_back(Isa::avx512);
    }
#endif
    return found;
}

const char* isa_name(Isa isa) {
    switch (isa) {
        case Isa::avx2: return "avx2";
        case Isa::avx512: return "avx512";
        default: return "scalar";
    }
}

Isa isa_from_name(const std::string& name) {
    std::string known;
    for (Isa isa : available_isas()) {
        if (name == isa_name(isa)) return isa;
        known += known.empty() ? "" : ", ";
        known += isa_name(isa);
    }
    throw std::invalid_argument("instruction set '" + name + "' is not available here; choose one of: " + known);
}

}  // namespace embtables
