// Attention of numbers in half precision by dot products of pairs (AVX512-BF16), where there are no tiles; else as in
// attention.cpp: a vector holds a pair of numbers of each of 16 queries, or the shares of two keys that they take.

#pragma once

#include "attention_tiles.h"
#include "pairs.h"

#ifdef PAIRS

namespace {

namespace pairs {

constexpr int MOST = 3;    // vectors of queries at once
constexpr int ABREAST = 8; // keys, or numbers of values, at once: MOST times as many sums

// out[k] = Σ_i x[i] m[k, i] of pairs for ABREAST rows k of m, its rows d pairs apart, and N vectors of queries; where
// DOWN, x[i] m[i, k].
template <int N, bool DOWN>
PAIRS inline void products(const Whole *x, int64_t count, const uint16_t *m, int64_t d, Row *out) {
    Row total[ABREAST * N];
#pragma GCC unroll 32
    for (int k = 0; k < ABREAST * N; k++)
        total[k] = Row{};
    for (int64_t i = 0; i < count; i++) {
        Whole own[N];
#pragma GCC unroll 4
        for (int n = 0; n < N; n++)
            own[n] = x[i * N + n];
#pragma GCC unroll 8
        for (int k = 0; k < ABREAST; k++) {
            const Whole factor = four(m + 2 * (DOWN ? i * d + k : k * d + i));
#pragma GCC unroll 4
            for (int n = 0; n < N; n++)
                total[k * N + n] = dots(total[k * N + n], own[n], factor);
        }
    }
#pragma GCC unroll 32
    for (int k = 0; k < ABREAST * N; k++)
        out[k] = total[k];
}

// What N vectors of queries attend to in one head of d numbers: `rows` of them are there. Behind the S keys there are
// as many of nothing as fill ABREAST; values of two keys each lie in one row, as `lay_in_pairs` has it.
template <int N>
PAIRS void attend(const uint16_t *query, int64_t query_row, int64_t rows, int64_t d, const uint16_t *keys,
                  const uint16_t *values, int64_t S, const float *added, int64_t stride, Row *room, uint16_t *out,
                  int64_t out_row) {
    const int64_t filled = (S + ABREAST - 1) / ABREAST * ABREAST;
    Row *mixed = room, *scores = mixed + d * N, block[2][W];
    Whole *queries = reinterpret_cast<Whole *>(scores + filled * N), *shares = queries + d / 2 * N;
    for (int n = 0; n < N; n++)
        for (int64_t c = 0; c < d; c += 2 * W) {
            for (int64_t k = 0; k < W; k++)
                block[0][k] = n * W + k < rows ? (Row)whole(query + (n * W + k) * query_row + c) : Row{};
            turn(block[0]);
            for (int64_t k = 0; k < W; k++)
                queries[(c / 2 + k) * N + n] = (Whole)block[0][k];
        }
    for (int64_t s = 0; s < filled; s += ABREAST)
        products<N, false>(queries, d / 2, keys + s * d, d / 2, scores + s * N);
    for (int64_t s = 0; s < filled; s++)
        for (int n = 0; n < N; n++)
            if (s >= S)
                scores[s * N + n] = everywhere(-INFINITY);
            else if (added)
                scores[s * N + n] += part(added + s * stride + n * W, 0);
    const float scale = 1 / std::sqrt(float(d));
    Row top[N], total[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) {
        top[n] = everywhere(-3e38f); // not -inf, which -inf would be subtracted from
        total[n] = Row{};
    }
    for (int64_t s = 0; s < S; s++)
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) {
            const Row x = scores[s * N + n];
            top[n] = top[n] < x ? x : top[n];
        }
    for (int64_t s = 0; s < filled; s += 2)
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) {
            const Row a = rough_exponential((scores[s * N + n] - top[n]) * scale);
            const Row b = rough_exponential((scores[(s + 1) * N + n] - top[n]) * scale);
            total[n] += a + b;
            narrow(a, b, reinterpret_cast<uint16_t *>(shares + s / 2 * N + n));
        }
    for (int64_t c = 0; c < d; c += ABREAST)
        products<N, true>(shares, filled / 2, values + 2 * c, d, mixed + c * N);
    for (int n = 0; n < N; n++) {
        const Row by = total[n] > 0.0f ? 1 / total[n] : total[n]; // who reads nothing attends to nothing
        for (int64_t c = 0; c < d; c += 2 * W) {
            for (int half = 0; half < 2; half++) {
                for (int64_t k = 0; k < W; k++)
                    block[half][k] = mixed[(half * d / 2 + c / 2 + k) * N + n] * by;
                turn(block[half]);
            }
            for (int64_t k = 0; k < W && n * W + k < rows; k++)
                write(block[0][k], block[1][k], out + (n * W + k) * out_row + c);
        }
    }
}

// Of S rows those that are read, one behind the other, and as many of nothing as fill ABREAST.
inline void lay_out(const uint16_t *x, int64_t row, int64_t S, int64_t d, const Read &read, uint16_t *rows) {
    for (int64_t s = 0; s < S; s++)
        if (!read.keys || read.keys[s]) {
            std::memcpy(rows, x + s * row, size_t(d) * sizeof *rows);
            rows += d;
        }
    std::memset(rows, 0, size_t((ABREAST - read.count % ABREAST) % ABREAST * d) * sizeof *rows);
}

// Of such rows two each as one of pairs, in place: first the even ones of a row's numbers, then the odd ones.
inline void lay_in_pairs(uint16_t *rows, int64_t count, int64_t d) {
    for (int64_t s = 0; s < count; s += 2)
        for (int64_t c = 0; c < d; c += 2 * W) {
            const Unsigned a = (Unsigned)whole(rows + s * d + c), b = (Unsigned)whole(rows + (s + 1) * d + c);
            const Unsigned even = (a & 0xffffu) | b << 16, odd = a >> 16 | (b & 0xffff0000u);
            std::memcpy(rows + s * d + c, &even, sizeof even);
            std::memcpy(rows + (s + 1) * d + c, &odd, sizeof odd);
        }
}

// As `attention` of attention.cpp.
inline void attention(int64_t B, int64_t A, int64_t S, int64_t heads, int64_t d, const int64_t *strides,
                      const int64_t *starts, const uint16_t *query, const uint16_t *key, const uint16_t *value,
                      const uint8_t *reads, uint16_t *out) {
    const int64_t width = heads * d, filled = S + ABREAST;
    const int64_t *of_key = strides + 2, *of_value = strides + 4;
    Row *room = reinterpret_cast<Row *>(scratch(0, size_t((3 * d / 2 + 3 * filled / 2) * MOST * W) / 2));
    uint16_t *keys = reinterpret_cast<uint16_t *>(scratch(1, size_t(filled * d) / 2)), *values = keys + filled * d;
    for (int64_t b = 0; b < B; b++) {
        const Place own = place_of(b, B, A, S, strides, starts, width);
        const int64_t lines = (own.A + W - 1) / W, stride = lines * W;
        const Read read = read_by(reads, strides + 6, b, own.A, own.S, stride);
        for (int64_t h = 0; h < heads; h++) {
            lay_out(key + own.key + h * d, of_key[1], own.S, d, read, keys);
            lay_out(value + own.value + h * d, of_value[1], own.S, d, read, values);
            lay_in_pairs(values, read.count, d);
            for (int64_t line = 0, count; line < lines; line += count) {
                const int64_t blocks = (lines - line + MOST - 1) / MOST, a = line * W;
                count = (lines - line + blocks - 1) / blocks;
                const auto run = count == 1 ? attend<1> : count == 2 ? attend<2> : attend<3>;
                run(query + own.query + a * strides[1] + h * d, strides[1],
                    own.A - a < count * W ? own.A - a : count * W, d, keys, values, read.count,
                    read.added ? read.added + a : nullptr, stride, room, out + own.out + a * width + h * d, width);
            }
        }
    }
}

} // namespace pairs

} // namespace

#endif
