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

inline Whole whole(const void *x) {
    Whole v;
    std::memcpy(&v, x, sizeof v);
    return v;
}

// Four bytes, everywhere.
inline Whole four(const void *x) {
    int32_t bytes;
    std::memcpy(&bytes, x, sizeof bytes);
    return bytes - Whole{};
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

// As `write`, but that what lies halfway is rounded up: fewer instructions.
inline void narrow(Row first, Row second, float *x) { write(first, second, x); }
inline void narrow(Row first, Row second, uint16_t *x) {
    const Unsigned both = ((Unsigned)first + 0x8000) >> 16 | (((Unsigned)second + 0x8000) & 0xffff0000u);
    std::memcpy(x, &both, sizeof both);
}

// All entries of a vector taken together, halves of them at a time.
template <typename E, typename V, typename Both> inline E folded(V x, Both both) {
    E of[W];
    std::memcpy(of, &x, sizeof x);
#pragma GCC unroll 4
    for (int64_t half = W / 2; half; half /= 2)
#pragma GCC unroll 8
        for (int64_t k = 0; k < half; k++)
            of[k] = both(of[k], of[k + half]);
    return of[0];
}

// exp to 2e-7 of numbers of at most 0; 0 below -87, NaN of NaN.
inline Row exponential(Row x) {
    const Row shift = everywhere(0x1.8p23f);
    const Row whole = x * 1.44269504f + shift, n = whole - shift;
    const Row r = (x - n * 0x1.62e4p-1f) - n * 1.42860677e-6f;
    Row p = everywhere(1.0f / 720);
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return x < -87.0f ? Row{} : (Row)((Whole)p + ((Whole)whole << 23));
}

inline Row within(Row x, float low, float high) {
    x = x < low ? everywhere(low) : x;
    return x > high ? everywhere(high) : x;
}

// GELU to 5e-5: x times the normal distribution's function, a half and an odd polynomial (fitted for that error where x
// is between -4.5 and 4.5) of x. A step of bytes that come before or behind it is worth a hundred times as much, and half
// precision keeps three digits.
inline Row gelu(Row x) {
    const Row z = within(x, -4.5f, 4.5f), s = z * z;
    Row p = everywhere(3.03643049e-11f);
    p = p * s - 3.31467079e-09f;
    p = p * s + 1.59100091e-07f;
    p = p * s - 4.45173718e-06f;
    p = p * s + 8.1425255e-05f;
    p = p * s - 0.00103759187f;
    p = p * s + 0.00958520496f;
    p = p * s - 0.0659846591f;
    p = p * s + 0.398712608f;
    return x * within(p * z + 0.5f, 0, 1);
}

} // namespace
