// exp and log of vectors of doubles, and the CRF's scores as factors: what its kernels share.

#pragma once

#include "vectors.h"

#include <cmath>

namespace {

constexpr double SMALLEST = 1e-130;
constexpr double NEAR = 1e20;      // a message is left alone while its sum is nearer to 1
constexpr double FURTHEST = 1e100; // of a message's sum from 1, in either direction, and of a transition's factor above
constexpr int64_t ABREAST = 4;     // so many posts are read abreast
constexpr int64_t BAD_LENGTH = -1, BAD_TAG = -2;

inline int64_t padded(int64_t tags) { return (tags + WIDTH - 1) / WIDTH * WIDTH; }

// Coefficients of exp, and of artanh(f) / f in f². How many are used: as many as the results' precision asks for.
constexpr double TAYLOR[] = {
    1.0,        1.0,         0.5,          1.0 / 6,       1.0 / 24,       1.0 / 120,      1.0 / 720,
    1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600};
constexpr double ARTANH[] = {1.0,      1.0 / 3,  1.0 / 5,  1.0 / 7,  1.0 / 9, 1.0 / 11,
                             1.0 / 13, 1.0 / 15, 1.0 / 17, 1.0 / 19, 1.0 / 21};
template <typename R> constexpr int EXP_DEGREE = sizeof(R) == 4 ? 7 : 12;
template <typename R> constexpr int LOG_DEGREE = sizeof(R) == 4 ? 4 : 10;

// exp to 1e-15, or 5e-9 where results are float, of numbers between -700 and 700.
template <typename R> inline Vec exponential_within(Vec x) {
    const Vec shift = spread(0x1.8p52);
    Vec whole = x * 1.4426950408889634 + shift;
    Vec n = whole - shift;
    Vec r = (x - n * 0x1.62e42fefa38p-1) - n * 0x1.ef35793c7673p-45;
    Vec p = spread(TAYLOR[EXP_DEGREE<R>]);
#pragma GCC unroll 12
    for (int k = EXP_DEGREE<R> - 1; k >= 0; k--)
        p = p * r + TAYLOR[k];
    return (Vec)((Bits)p + ((Bits)whole << 52));
}

inline Bits in_range(Vec x) { return (Vec)((Bits)x & INT64_MAX) <= 700.0; }

// The same; exactly 0 below -700, inf above 700, NaN of NaN.
template <typename R> inline Vec exponential(Vec x) {
    Vec value = exponential_within<R>(x);
    value = x >= -700.0 ? value : spread(0);
    return x <= 700.0 ? value : x > 700.0 ? spread(INFINITY) : (x < 0.0 ? value : x);
}

// What `logarithm` is made of: x = 2^n · m, m near 1, f = (m - 1) / (m + 1) as its two sides.
struct Logarithm {
    Vec n, above, below;
    explicit Logarithm(Vec x) {
        // The exponent is taken up by 1024, so that shifting needs no sign, and read as the last digits of a number by
        // 2^52: there is no instruction for either before AVX-512.
        const Bits half = (Bits)spread(0.70710678118654752);
        const Positive bits = (Positive)((Bits)x - half) + (1024ULL << 52);
        n = (Vec)((bits >> 52) | (Positive)spread(0x1p52)) - (0x1p52 + 1024);
        const Vec m = (Vec)((Bits)(bits & 0xfffffffffffffULL) + half);
        above = m - 1.0, below = m + 1.0;
    }
    template <typename R> Vec of(Vec f) const {
        const Vec g = f * f;
        Vec p = spread(ARTANH[LOG_DEGREE<R>]);
#pragma GCC unroll 12
        for (int k = LOG_DEGREE<R> - 1; k >= 0; k--)
            p = p * g + ARTANH[k];
        return 2.0 * f * p + n * 0.69314718055994531;
    }
};

// log, as exact, of positive normal numbers.
template <typename R> inline Vec logarithm(Vec x) {
    const Logarithm own(x);
    return own.of<R>(own.above / own.below);
}

// log of L vectors, each times `by`: two share a division, which takes as long as all else.
template <typename R> inline void logarithms(Vec *x, int64_t L, Vec by) {
    int64_t j = 0;
    for (; j + 2 <= L; j += 2) {
        const Logarithm a(x[j] * by), b(x[j + 1] * by);
        const Vec r = 1 / (a.below * b.below);
        x[j] = a.of<R>(a.above * b.below * r);
        x[j + 1] = b.of<R>(b.above * a.below * r);
    }
    if (j < L)
        x[j] = logarithm<R>(x[j] * by);
}

// The scores as factors: exp of transitions [L, P] and of their transpose, of start and end [P].
struct Factors {
    int64_t L, P, rows;
    Buffer room;
    double *moves, *back, *start, *end;
    bool within = true; // no transition's factor is too large for probability space
    template <typename R>
    Factors(int64_t L, const R *transitions, const R *from, const R *to)
        : L(L), P(padded(L)), rows(L + L % 2), room((2 * rows + 2) * P), moves(room.data), back(moves + rows * P),
          start(back + rows * P), end(start + P) {
        for (int64_t i = 0; i < L; i++) {
            for (int64_t j = 0; j < L; j++)
                moves[i * P + j] = transitions[i * L + j];
            start[i] = from[i];
            end[i] = to[i];
        }
        for (int64_t i = 0; i < L + 2; i++) {
            double *row = i < L ? moves + i * P : i == L ? start : end;
            for (int64_t c = 0; c < P; c += WIDTH)
                at(row, c) = exponential<double>(at(row, c));
            for (int64_t j = 0; j < L; j++)
                within = within && (i >= L || row[j] < FURTHEST);
            for (int64_t j = L; j < P; j++)
                row[j] = 0;
        }
        for (int64_t i = 0; i < L; i++)
            for (int64_t j = 0; j < L; j++)
                back[j * P + i] = moves[i * P + j];
    }
};

} // namespace
