// Vectors of numbers in single precision, read and written in half precision as well.

#pragma once

#include "vectors.h"

namespace {

// Numbers in half precision (bfloat16) lie two to a single one: of 2 W of them, or of as many singles, `part` gives W,
// and `write` puts both parts together again. Of singles those are the first and the second half, of halves the even
// and the odd ones, which is cheaper than to widen them in their order.

typedef Lanes<float>::Type Row;
typedef Lanes<float>::Whole Whole;
typedef uint32_t Unsigned __attribute__((vector_size(BYTES)));
constexpr int64_t W = BYTES / sizeof(float);

inline Row everywhere(float x) { return x - Row{}; } // see `spread`

inline Row part(const float *x, int half) {
    Row v;
    std::memcpy(&v, x + half * W, sizeof v);
    return v;
}
inline Row part(const uint16_t *x, int half) {
    Unsigned both;
    std::memcpy(&both, x, sizeof both);
    return (Row)(half ? both & 0xffff0000u : both << 16);
}

inline void write(Row first, Row second, float *x) {
    std::memcpy(x, &first, sizeof first);
    std::memcpy(x + W, &second, sizeof second);
}
// Rounded to the nearest, ties to even.
inline void write(Row first, Row second, uint16_t *x) {
    Unsigned a = (Unsigned)first, b = (Unsigned)second;
    a = (a + 0x7fff + (a >> 16 & 1)) >> 16;
    b = (b + 0x7fff + (b >> 16 & 1)) & 0xffff0000u;
    a |= b;
    std::memcpy(x, &a, sizeof a);
}

} // namespace
