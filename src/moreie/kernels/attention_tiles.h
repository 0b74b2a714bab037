// Attention over short rows by tiles, and which keys are read, which attention.cpp asks as well.
//
// A tile of scores has 16 keys of 16 queries, so that a query's maximum and sum go from key to key and never across a
// vector; what lies beside each other in a tile of shares are keys 16 apart, so that no entry changes its place.

#pragma once

#include "singles.h"
#include "tiles.h"

#include <cmath>

namespace {

// What a post's queries read: `count` keys, those that `keys` [S] says (null: all), or each of them its own, by what is
// added to scores [S, stride] (null: nothing).
struct Read {
    const uint8_t *keys;
    int64_t count;
    const float *added;
};

// Of post b; `reads` and its strides as `attention` has them.
inline Read read_by(const uint8_t *reads, const int64_t *strides, int64_t b, int64_t A, int64_t S, int64_t stride) {
    if (!reads)
        return {nullptr, S, nullptr};
    reads += b * strides[0];
    if (!strides[1]) {
        int64_t count = 0;
        for (int64_t s = 0; s < S; s++)
            count += reads[s] != 0;
        return {reads, count, nullptr};
    }
    float *added = reinterpret_cast<float *>(scratch(2, size_t(S * stride + 1) / 2));
    for (int64_t s = 0; s < S; s++)
        for (int64_t a = 0; a < stride; a++)
            added[s * stride + a] = a < A && reads[a * strides[1] + s] ? 0 : -INFINITY;
    return {nullptr, S, added};
}

// Where a post's states begin, in numbers behind the first, and how many queries and keys it has.
struct Place {
    int64_t query, key, value, out, A, S;
};

// Of post b; `strides` and `starts` as `attention` has them, rows of the outcome `width` apart.
inline Place place_of(int64_t b, int64_t B, int64_t A, int64_t S, const int64_t *strides, const int64_t *starts,
                      int64_t width) {
    if (!starts)
        return {b * strides[0], b * strides[2], b * strides[4], b * A * width, A, S};
    const int64_t q = starts[b], k = starts[B + 1 + b];
    return {q * strides[1], k * strides[3], k * strides[5], q * width, starts[b + 1] - q, starts[B + 2 + b] - k};
}

// exp to 4e-5 of numbers of at most 0, 0 below -87: what comes of it is rounded to half precision.
inline Row rough_exponential(Row x) {
    const Row shift = everywhere(0x1.8p23f);
    const Row whole = x * 1.44269504f + shift, r = x - (whole - shift) * 0.693147181f;
    Row p = everywhere(1.0f / 24);
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return x < -87.0f ? Row{} : (Row)((Whole)p + ((Whole)whole << 23));
}

#ifdef TILES

namespace tiles {

#define WITH __attribute__((target("amx-tile,amx-bf16")))

typedef uint16_t Tile[16][32];

inline Row words(const uint16_t *x) {
    Row v;
    std::memcpy(&v, x, sizeof v);
    return v;
}

// Values of 32 keys, each of D numbers, as tiles whose rows are numbers: of each 32 the even ones, then the odd ones.
template <int64_t D> void turn_values(const uint16_t *values, Tile *to) {
    for (int64_t c = 0; c < D; c += 32, to += 2) {
        Row first[16], second[16];
        for (int64_t k = 0; k < 16; k++) {
            first[k] = words(values + k * D + c);
            second[k] = words(values + (k + 16) * D + c);
        }
        turn(first);
        turn(second);
        for (int64_t k = 0; k < 16; k++) {
            const Unsigned a = (Unsigned)first[k], b = (Unsigned)second[k];
            const Unsigned even = (a & 0xffffu) | b << 16, odd = a >> 16 | (b & 0xffff0000u);
            std::memcpy(to[0][k], &even, sizeof even);
            std::memcpy(to[1][k], &odd, sizeof odd);
        }
    }
}

// What up to 16 queries attend to in one head of D numbers.
template <int64_t D>
WITH void attend(const uint16_t *query, int64_t query_row, int64_t rows, const uint16_t *keys, const Tile *values,
                 int64_t S, const float *added, int64_t stride, float *scores, Tile *shares, uint16_t *out,
                 int64_t out_row) {
    static_assert(D == 32 || D == 64, "a head is one or two tiles wide");
    alignas(64) Row block[16];
    for (int64_t c = 0; c < D; c += 32) {
        for (int64_t k = 0; k < 16; k++)
            block[k] = k < rows ? words(query + k * query_row + c) : Row{};
        turn(block);
        in_memory();
        if (c == 0)
            _tile_loadd(6, block, 64);
        else
            _tile_loadd(7, block, 64);
    }
    for (int64_t s = 0; s < S; s += 32) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_loadd(2, keys + s * D, 2 * D);
        _tile_loadd(3, keys + (s + 16) * D, 2 * D);
        _tile_dpbf16ps(0, 2, 6);
        _tile_dpbf16ps(1, 3, 6);
        if (D == 64) {
            _tile_loadd(4, keys + s * D + 32, 2 * D);
            _tile_loadd(5, keys + (s + 16) * D + 32, 2 * D);
            _tile_dpbf16ps(0, 4, 7);
            _tile_dpbf16ps(1, 5, 7);
        }
        _tile_stored(0, scores + s * 16, 64);
        _tile_stored(1, scores + (s + 16) * 16, 64);
    }
    if (added)
        for (int64_t s = 0; s < S; s++) {
            const Row x = part(scores + s * 16, 0) + part(added + s * stride, 0);
            std::memcpy(scores + s * 16, &x, sizeof x);
        }
    // Behind the last key: nothing is read.
    for (int64_t s = S; s % 32; s++) {
        const Row none = everywhere(-INFINITY);
        std::memcpy(scores + s * 16, &none, sizeof none);
    }
    Row top[4] = {everywhere(-3e38f), everywhere(-3e38f), everywhere(-3e38f), everywhere(-3e38f)}, total[2] = {};
    for (int64_t s = 0; s < S; s += 4)
#pragma GCC unroll 4
        for (int64_t k = 0; k < 4; k++) {
            const Row x = part(scores + (s + k) * 16, 0);
            top[k] = top[k] < x ? x : top[k];
        }
#pragma GCC unroll 2
    for (int64_t k = 0; k < 2; k++)
        top[k] = top[k] < top[k + 2] ? top[k + 2] : top[k];
    const float scale = 1 / std::sqrt(float(D));
    const Row most = (top[0] < top[1] ? top[1] : top[0]) * scale;
    for (int64_t s = 0; s < S; s += 32) {
        const int64_t keys_left = S - s < 16 ? S - s : 16;
        for (int64_t k = 0; k < keys_left; k++) {
            const float *x = scores + (s + k) * 16;
            const Row a = rough_exponential(part(x, 0) * scale - most);
            const Row b = rough_exponential(part(x + 256, 0) * scale - most);
            total[0] += a;
            total[1] += b;
            narrow(a, b, shares[s / 32][k]);
        }
        if (keys_left < 16)
            std::memset(shares[s / 32][keys_left], 0, (16 - keys_left) * sizeof *shares[0]);
    }
    in_memory();
    total[0] += total[1];
    const Row by = total[0] > 0.0f ? 1 / total[0] : total[0]; // who reads nothing attends to nothing
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t s = 0; s < S; s += 32, values += D / 16) {
        _tile_loadd(6, shares[s / 32], 64);
        _tile_loadd(4, values[0], 64);
        _tile_loadd(5, values[1], 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 5, 6);
        if (D == 64) {
            _tile_loadd(4, values[2], 64);
            _tile_loadd(5, values[3], 64);
            _tile_dpbf16ps(2, 4, 6);
            _tile_dpbf16ps(3, 5, 6);
        } else if ((s += 32) < S) { // sums of their own, which need not wait for those before
            values += D / 16;
            _tile_loadd(7, shares[s / 32], 64);
            _tile_loadd(4, values[0], 64);
            _tile_loadd(5, values[1], 64);
            _tile_dpbf16ps(2, 4, 7);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    alignas(64) Row mixed[4][16];
    _tile_stored(0, mixed[0], 64);
    _tile_stored(1, mixed[1], 64);
    _tile_stored(2, mixed[2], 64);
    _tile_stored(3, mixed[3], 64);
    for (int64_t c = 0; c < D; c += 32) {
        Row *even = mixed[c / 16], *odd = mixed[c / 16 + 1];
        for (int64_t k = 0; k < 16; k++) {
            even[k] = (D == 64 ? even[k] : even[k] + mixed[2][k]) * by;
            odd[k] = (D == 64 ? odd[k] : odd[k] + mixed[3][k]) * by;
        }
        turn(even);
        turn(odd);
        for (int64_t k = 0; k < rows; k++)
            write(even[k], odd[k], out + k * out_row + c);
    }
}

// Of S rows those that are read, one behind the other, and as many of nothing as fill 32.
template <int64_t D>
void lay_out(const uint16_t *x, int64_t row, int64_t S, const Read &read, uint16_t *rows) {
    for (int64_t s = 0; s < S; s++)
        if (!read.keys || read.keys[s]) {
            std::memcpy(rows, x + s * row, D * sizeof *rows);
            rows += D;
        }
    std::memset(rows, 0, (31 - (read.count - 1) % 32) * D * sizeof *rows);
}

template <int64_t D>
WITH void attention(int64_t B, int64_t A, int64_t S, int64_t heads, const int64_t *strides, const int64_t *starts,
                    const uint16_t *query, const uint16_t *key, const uint16_t *value, const uint8_t *reads,
                    uint16_t *out) {
    const int64_t width = heads * D, most = (S + 31) / 32 * 32;
    const int64_t *of_key = strides + 2, *of_value = strides + 4;
    uint16_t *rows = reinterpret_cast<uint16_t *>(scratch(0, size_t(most * D) / 2)), *values = rows + most * D;
    float *scores = reinterpret_cast<float *>(scratch(1, size_t(most * 16)));
    Tile *shares = reinterpret_cast<Tile *>(scores + most * 16), *turned_values = reinterpret_cast<Tile *>(values);
    const Shape shape;
    in_memory();
    _tile_loadconfig(&shape);
    for (int64_t b = 0; b < B; b++) {
        const Place own = place_of(b, B, A, S, strides, starts, width);
        const int64_t stride = (own.A + 15) / 16 * 16;
        const Read read = read_by(reads, strides + 6, b, own.A, own.S, stride);
        for (int64_t h = 0; h < heads; h++) {
            lay_out<D>(value + own.value + h * D, of_value[1], own.S, read, rows);
            for (int64_t s = 0; s < read.count; s += 32)
                turn_values<D>(rows + s * D, turned_values + s / 32 * (D / 16));
            lay_out<D>(key + own.key + h * D, of_key[1], own.S, read, rows);
            for (int64_t a = 0; a < own.A; a += 16)
                attend<D>(query + own.query + a * strides[1] + h * D, strides[1], own.A - a < 16 ? own.A - a : 16, rows,
                          turned_values, read.count, read.added ? read.added + a : nullptr, stride, scores, shares,
                          out + own.out + a * width + h * D, width);
        }
    }
    _tile_release();
}

} // namespace tiles

#endif

} // namespace
