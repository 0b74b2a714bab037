// Attention over short rows, for results without gradients: what encoders/attention.py defines.
//
// A vector holds the same number of several queries (16 with AVX-512), so that maxima, sums and exp of a query's
// scores go from key to key and never across a vector. Scores of up to MOST vectors of queries stay in registers while
// they are summed. A head's keys and values are laid out one behind the other, in single precision, first.
//
// Where the processor can multiply tiles, numbers in half precision are left to attention_tiles.h, where it has dot
// products of pairs of them, to attention_pairs.h.
//
// In half precision a head's numbers stand in the order of `part` (singles.h); scores are the same, since those of
// queries and keys are ordered alike.

#include "attention_pairs.h"
#include "attention_tiles.h"
#include "singles.h"

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

// What each query attends to: `out` [B, A, heads d], of queries [B, A, heads d], keys and values [B, S, heads d]. `reads`
// bool [B, A, S], or [B, 1, S] with 0 from row to row, or null: what each reads. Every strides are of posts and of rows.
// Posts may lie one behind the other, each of its own length: `starts`, null otherwise, has the row where the queries of
// each begin, and behind those of the last one [B + 1], then the same of keys; A and S are those of the longest.
template <typename R>
void attention(int64_t B, int64_t A, int64_t S, int64_t heads, int64_t d, const int64_t *strides, const int64_t *starts,
               const R *query, const R *key, const R *value, const uint8_t *reads, R *out) {
    const int64_t width = heads * d;
    const int64_t *of_key = strides + 2, *of_value = strides + 4;
    Row *room = reinterpret_cast<Row *>(scratch(0, size_t((2 * d + S) * MOST * W) / 2));
    float *keys = reinterpret_cast<float *>(scratch(1, size_t(S * d))), *values = keys + S * d;
    for (int64_t b = 0; b < B; b++) {
        const Place own = place_of(b, B, A, S, strides, starts, width);
        const int64_t lines = (own.A + W - 1) / W, stride = lines * W;
        const Read read = read_by(reads, strides + 6, b, own.A, own.S, stride);
        for (int64_t h = 0; h < heads; h++) {
            lay_out(key + own.key + h * d, of_key[1], own.S, d, read.keys, keys);
            lay_out(value + own.value + h * d, of_value[1], own.S, d, read.keys, values);
            for (int64_t line = 0, count; line < lines; line += count) {
                const int64_t blocks = (lines - line + MOST - 1) / MOST, a = line * W;
                count = (lines - line + blocks - 1) / blocks;
                const auto run = count == 1 ? attend<R, 1> : count == 2 ? attend<R, 2> : attend<R, 3>;
                run(query + own.query + a * strides[1] + h * d, strides[1],
                    own.A - a < count * W ? own.A - a : count * W, d, keys, values, read.count,
                    read.added ? read.added + a : nullptr, stride, room, out + own.out + a * width + h * d, width);
            }
        }
    }
}

} // namespace

extern "C" const int64_t moreie_attention_unit;
const int64_t moreie_attention_unit = 2 * W;

extern "C" void moreie_attention_float32(int64_t B, int64_t A, int64_t S, int64_t heads, int64_t d,
                                         const int64_t *strides, const int64_t *starts, const float *query,
                                         const float *key, const float *value, const uint8_t *reads, float *out) {
    attention(B, A, S, heads, d, strides, starts, query, key, value, reads, out);
}

extern "C" void moreie_attention_bfloat16(int64_t B, int64_t A, int64_t S, int64_t heads, int64_t d,
                                          const int64_t *strides, const int64_t *starts, const uint16_t *query,
                                          const uint16_t *key, const uint16_t *value, const uint8_t *reads,
                                          uint16_t *out) {
#ifdef PAIRS
    if (has_pairs())
        return pairs::attention(B, A, S, heads, d, strides, starts, query, key, value, reads, out);
#endif
    attention(B, A, S, heads, d, strides, starts, query, key, value, reads, out);
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
                                          const int64_t *strides, const int64_t *starts, const uint16_t *query,
                                          const uint16_t *key, const uint16_t *value, const uint8_t *reads,
                                          uint16_t *out) {
#ifdef TILES
    if (has_tiles())
        (d == 32 ? tiles::attention<32> : tiles::attention<64>)(B, A, S, heads, strides, starts, query, key, value,
                                                                reads, out);
#endif
}
