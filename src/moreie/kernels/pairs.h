// Dot products of pairs of numbers in half precision, which processors with AVX512-BF16 have for whole vectors.

#pragma once

#include "singles.h"

#if BYTES == 64
#define PAIRS __attribute__((target("avx512bf16")))

#include <cpuid.h>
#include <immintrin.h>

namespace {

// Each of `sums` and the products of the two numbers that x and y have in its place.
PAIRS inline Row dots(Row sums, Whole x, Whole y) {
    return (Row)_mm512_dpbf16_ps((__m512)sums, (__m512bh)x, (__m512bh)y);
}

inline bool ask_for_pairs() {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1);
}
inline bool has_pairs() {
    static const bool there = ask_for_pairs();
    return there;
}

} // namespace

#endif
