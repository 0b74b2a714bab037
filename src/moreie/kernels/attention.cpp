// Attention over short rows, for results without gradients: what encoders/attention.py defines.
//
// A vector holds the same number of several queries (16 with AVX-512), so that maxima, sums and exp of a query's
// scores go from key to key and never across a vector. Scores of up to MOST vectors of queries stay in registers while
// they are summed. A head's keys and values are laid out one behind the other, in single precision, first.
//
// Where the processor can multiply tiles, products of numbers in half precision are of those: a tile of scores has 16 keys
// of 16 queries, and what a tile of their shares has beside each other are keys 16 apart.
//
// In half precision a head's numbers stand in the order of `part` (singles.h); scores are the same, since those of
// queries and keys are ordered alike.

#include "singles.h"
#include "tiles.h"

#include <cmath>

namespace {

constexpr int MOST = 3;                     // vectors of queries at once
constexpr int ABREAST = BYTES == 64 ? 8 : 4; // keys, or numbers of values, at once: MOST times as many sums

// out[k] = Σ_i x[i] m[k, i] for K rows k of m, its rows d apart, and N vectors of queries; where DOWN, x[i] m[i, k].
template <int N, int K, bool DOWN>
inline void products(const Row *x, int64_t count, const float *m, int64_t d, Row *out) {
    Row total[K * N];
#pragma GCC unroll 32
    for (int k = 0; k < K * N; k++)
        total[k] = Row{};
    for (int64_t i = 0; i < count; i++) {
        Row own[N];
#pragma GCC unroll 4
        for (int n = 0; n < N; n++)
            own[n] = x[i * N + n];
#pragma GCC unroll 8
        for (int k = 0; k < K; k++) {
            const Row factor = everywhere(m[DOWN ? i * d + k : k * d + i]);
#pragma GCC unroll 4
            for (int n = 0; n < N; n++)
                total[k * N + n] += own[n] * factor;
        }
    }
#pragma GCC unroll 32
    for (int k = 0; k < K * N; k++)
        out[k] = total[k];
}

// What N vectors of queries attend to in one head: `rows` of them are there. `added` [S, A], its rows `stride` apart, is
// added to the scores; null where every query reads every key.
template <typename R, int N>
void attend(const R *query, int64_t query_row, int64_t rows, int64_t d, const float *keys, const float *values, int64_t S,
            const float *added, int64_t stride, Row *room, R *out, int64_t out_row) {
    Row *queries = room, *mixed = queries + d * N, *scores = mixed + d * N, block[2][W];
    const float scale = 1 / std::sqrt(float(d));
    for (int n = 0; n < N; n++)
        for (int64_t c = 0; c < d; c += 2 * W)
            for (int half = 0; half < 2; half++) {
                for (int64_t k = 0; k < W; k++)
                    block[0][k] =
                        n * W + k < rows ? part(query + (n * W + k) * query_row + c, half) * scale : Row{};
                turn(block[0]);
                for (int64_t k = 0; k < W; k++)
                    queries[(c + half * W + k) * N + n] = block[0][k];
            }
    int64_t s = 0;
    for (; s + ABREAST <= S; s += ABREAST)
        products<N, ABREAST, false>(queries, d, keys + s * d, d, scores + s * N);
    for (; s < S; s++)
        products<N, 1, false>(queries, d, keys + s * d, d, scores + s * N);
    if (added)
        for (s = 0; s < S; s++)
            for (int n = 0; n < N; n++)
                scores[s * N + n] += part(added + s * stride + n * W, 0);
    Row top[N], total[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) {
        top[n] = everywhere(-3e38f); // not -inf, which -inf would be subtracted from
        total[n] = Row{};
    }
    for (s = 0; s < S; s++)
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) {
            const Row x = scores[s * N + n];
            top[n] = top[n] < x ? x : top[n];
        }
    for (s = 0; s < S; s++)
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) {
            const Row x = exponential(scores[s * N + n] - top[n]);
            total[n] += x;
            scores[s * N + n] = x;
        }
    for (int64_t c = 0; c < d; c += ABREAST)
        products<N, ABREAST, true>(scores, S, values + c, d, mixed + c * N);
    for (int n = 0; n < N; n++) {
        const Row by = total[n] > 0.0f ? 1 / total[n] : total[n]; // who reads nothing attends to nothing
        for (int64_t c = 0; c < d; c += 2 * W) {
            for (int half = 0; half < 2; half++) {
                for (int64_t k = 0; k < W; k++)
                    block[half][k] = mixed[(c + half * W + k) * N + n] * by;
                turn(block[half]);
            }
            for (int64_t k = 0; k < W && n * W + k < rows; k++)
                write(block[0][k], block[1][k], out + (n * W + k) * out_row + c);
        }
    }
}

// Of S rows those that are read, one behind the other.
template <typename R>
inline void lay_out(const R *x, int64_t row, int64_t S, int64_t d, const uint8_t *reads, float *rows) {
    for (int64_t s = 0; s < S; s++)
        if (!reads || reads[s]) {
            for (int64_t c = 0; c < d; c += 2 * W)
                write(part(x + s * row + c, 0), part(x + s * row + c, 1), rows + c);
            rows += d;
        }
}

inline int64_t count(const uint8_t *reads, int64_t S) {
    int64_t read = 0;
    for (int64_t s = 0; s < S; s++)
        read += reads[s] != 0;
    return read;
}

// Of what each of A queries reads [A, S], its rows `row` apart, what is added to scores [S, stride].
inline void add_what_is_read(const uint8_t *reads, int64_t row, int64_t A, int64_t S, int64_t stride, float *added) {
    for (int64_t s = 0; s < S; s++)
        for (int64_t a = 0; a < stride; a++)
            added[s * stride + a] = a < A && reads[a * row + s] ? 0 : -INFINITY;
}

// What each query attends to: `out` [B, A, heads d], of queries [B, A, heads d], keys and values [B, S, heads d]. `reads`
// bool [B, A, S], or [B, 1, S] with 0 from row to row, or null: what each reads. Every strides are of posts and of rows.
template <typename R>
void attention(int64_t B, int64_t A, int64_t S, int64_t heads, int64_t d, const int64_t *strides, const R *query,
               const R *key, const R *value, const uint8_t *reads, R *out) {
    const int64_t lines = (A + W - 1) / W, stride = lines * W, width = heads * d;
    const int64_t *of_key = strides + 2, *of_value = strides + 4, *of_reads = strides + 6;
    const bool alike = !reads || !of_reads[1];
    Row *room = reinterpret_cast<Row *>(scratch(0, size_t((2 * d + S) * MOST * W) / 2));
    float *keys = reinterpret_cast<float *>(scratch(1, size_t(S * d))), *values = keys + S * d;
    float *added = alike ? nullptr : reinterpret_cast<float *>(scratch(2, size_t(S * stride) / 2));
    for (int64_t b = 0; b < B; b++) {
        const uint8_t *own = reads ? reads + b * of_reads[0] : nullptr;
        const int64_t read = own && alike ? count(own, S) : S;
        if (own && !alike)
            add_what_is_read(own, of_reads[1], A, S, stride, added);
        for (int64_t h = 0; h < heads; h++) {
            lay_out(key + b * of_key[0] + h * d, of_key[1], S, d, alike ? own : nullptr, keys);
            lay_out(value + b * of_value[0] + h * d, of_value[1], S, d, alike ? own : nullptr, values);
            for (int64_t line = 0, count; line < lines; line += count) {
                const int64_t blocks = (lines - line + MOST - 1) / MOST, a = line * W;
                count = (lines - line + blocks - 1) / blocks;
                const auto run = count == 1 ? attend<R, 1> : count == 2 ? attend<R, 2> : attend<R, 3>;
                run(query + b * strides[0] + a * strides[1] + h * d, strides[1], A - a < count * W ? A - a : count * W,
                    d, keys, values, read, added ? added + a : nullptr, stride, room, out + (b * A + a) * width + h * d,
                    width);
            }
        }
    }
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
void lay_out(const uint16_t *x, int64_t row, int64_t S, const uint8_t *reads, int64_t read, uint16_t *rows) {
    for (int64_t s = 0; s < S; s++)
        if (!reads || reads[s]) {
            std::memcpy(rows, x + s * row, D * sizeof *rows);
            rows += D;
        }
    std::memset(rows, 0, (32 - (read - 1) % 32 - 1) * D * sizeof *rows);
}

template <int64_t D>
WITH void attention(int64_t B, int64_t A, int64_t S, int64_t heads, const int64_t *strides, const uint16_t *query,
                    const uint16_t *key, const uint16_t *value, const uint8_t *reads, uint16_t *out) {
    const int64_t stride = (A + 15) / 16 * 16, width = heads * D, most = (S + 31) / 32 * 32;
    const int64_t *of_key = strides + 2, *of_value = strides + 4, *of_reads = strides + 6;
    const bool alike = !reads || !of_reads[1];
    uint16_t *rows = reinterpret_cast<uint16_t *>(scratch(0, size_t(most * D) / 2)), *values = rows + most * D;
    float *scores = reinterpret_cast<float *>(scratch(1, size_t(most * 16)));
    Tile *shares = reinterpret_cast<Tile *>(scores + most * 16), *turned_values = reinterpret_cast<Tile *>(values);
    float *added = alike ? nullptr : reinterpret_cast<float *>(scratch(2, size_t(S * stride) / 2));
    const Shape shape;
    in_memory();
    _tile_loadconfig(&shape);
    for (int64_t b = 0; b < B; b++) {
        const uint8_t *own = reads ? reads + b * of_reads[0] : nullptr;
        const int64_t read = own && alike ? count(own, S) : S;
        if (own && !alike)
            add_what_is_read(own, of_reads[1], A, S, stride, added);
        for (int64_t h = 0; h < heads; h++) {
            lay_out<D>(value + b * of_value[0] + h * D, of_value[1], S, alike ? own : nullptr, read, rows);
            for (int64_t s = 0; s < read; s += 32)
                turn_values<D>(rows + s * D, turned_values + s / 32 * (D / 16));
            lay_out<D>(key + b * of_key[0] + h * D, of_key[1], S, alike ? own : nullptr, read, rows);
            for (int64_t a = 0; a < A; a += 16)
                attend<D>(query + b * strides[0] + a * strides[1] + h * D, strides[1], A - a < 16 ? A - a : 16, rows,
                          turned_values, read, added ? added + a : nullptr, stride, scores, shares,
                          out + (b * A + a) * width + h * D, width);
        }
    }
    _tile_release();
}

} // namespace tiles

#endif

} // namespace

extern "C" const int64_t moreie_attention_unit;
const int64_t moreie_attention_unit = 2 * W;

extern "C" void moreie_attention_float32(int64_t B, int64_t A, int64_t S, int64_t heads, int64_t d,
                                         const int64_t *strides, const float *query, const float *key,
                                         const float *value, const uint8_t *reads, float *out) {
    attention(B, A, S, heads, d, strides, query, key, value, reads, out);
}

extern "C" void moreie_attention_bfloat16(int64_t B, int64_t A, int64_t S, int64_t heads, int64_t d,
                                          const int64_t *strides, const uint16_t *query, const uint16_t *key,
                                          const uint16_t *value, const uint8_t *reads, uint16_t *out) {
    attention(B, A, S, heads, d, strides, query, key, value, reads, out);
}

// The widths of a head that there are tiles for, as bits; 0 where there are none.
extern "C" int64_t moreie_attention_tiles() {
#ifdef TILES
    return has_tiles() ? 32 | 64 : 0;
#else
    return 0;
#endif
}

// `moreie_attention_bfloat16` of such heads, where there are tiles.
extern "C" void moreie_attention_in_tiles(int64_t B, int64_t A, int64_t S, int64_t heads, int64_t d,
                                          const int64_t *strides, const uint16_t *query, const uint16_t *key,
                                          const uint16_t *value, const uint8_t *reads, uint16_t *out) {
#ifdef TILES
    if (has_tiles())
        (d == 32 ? tiles::attention<32> : tiles::attention<64>)(B, A, S, heads, strides, query, key, value, reads, out);
#endif
}
