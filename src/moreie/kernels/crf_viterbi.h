// The best paths of posts: several abreast, or one by one with a row of tags in vectors. Scores alone are kept on the way;
// where a best way came from is looked for again on the way back, for one tag of each word instead of all.

#pragma once

#include "crf_abreast.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace {

// The tables that vectors of numbers are looked up in by one instruction; without it they are read one by one.
#if BYTES == 64
constexpr bool LOOKS_UP_FLOATS = true, LOOKS_UP_DOUBLES = true;
inline Lanes<float>::Type looked_up(Lanes<float>::Type table, Lanes<float>::Whole which) {
    return (Lanes<float>::Type)_mm512_permutexvar_ps((__m512i)which, (__m512)table);
}
inline Lanes<double>::Type looked_up(Lanes<double>::Type table, Lanes<double>::Whole which) {
    return (Lanes<double>::Type)_mm512_permutexvar_pd((__m512i)which, (__m512d)table);
}
#else
#ifdef __AVX2__
constexpr bool LOOKS_UP_FLOATS = true, LOOKS_UP_DOUBLES = false;
inline Lanes<float>::Type looked_up(Lanes<float>::Type table, Lanes<float>::Whole which) {
    return (Lanes<float>::Type)_mm256_permutevar8x32_ps((__m256)table, (__m256i)which);
}
#else
constexpr bool LOOKS_UP_FLOATS = false, LOOKS_UP_DOUBLES = false;
inline Lanes<float>::Type looked_up(Lanes<float>::Type table, Lanes<float>::Whole) { return table; }
#endif
inline Lanes<double>::Type looked_up(Lanes<double>::Type table, Lanes<double>::Whole) { return table; }
#endif

// The same whole number in all lanes.
template <typename I> inline I everywhere(int64_t i) { return I{} + std::decay_t<decltype(I{}[0])>(i); }

// row[which] of each lane; the row fills N tables, or is of any length where N is 0.
template <typename R, int N>
inline typename Lanes<R>::Type entries(const R *row, typename Lanes<R>::Whole which) {
    typedef typename Lanes<R>::Type V;
    constexpr int64_t W = BYTES / sizeof(R);
    V out;
    if constexpr (N == 0) {
        for (int64_t k = 0; k < W; k++)
            out[k] = row[which[k]];
    } else {
        out = looked_up(*(const V *)row, which);
#pragma GCC unroll 4
        for (int n = 1; n < N; n++)
            out = which >= everywhere<typename Lanes<R>::Whole>(n * W) ? looked_up(*(const V *)(row + n * W), which) : out;
    }
    return out;
}

// In each lane the largest number so far, and the first place that has it.
template <typename R> struct Best {
    typename Lanes<R>::Type top;
    typename Lanes<R>::Whole place;

    inline void take(typename Lanes<R>::Type x, int64_t i) {
        const typename Lanes<R>::Whole better = top < x;
        top = top < x ? x : top;
        place = better ? everywhere<typename Lanes<R>::Whole>(i) : place;
    }
};

// Where the best ways to the tags `which` of posts abreast come from; moves [L, Q].
template <typename R, int N>
inline typename Lanes<R>::Whole origins(const R *moves, int64_t L, int64_t Q, const typename Lanes<R>::Type *score,
                                        typename Lanes<R>::Whole which) {
    typedef typename Lanes<R>::Whole I;
    const int64_t half = L / 2; // two searches side by side: each of their steps waits for the one before
    Best<R> low = {score[0] + entries<R, N>(moves, which), I{}};
    Best<R> high = {score[half] + entries<R, N>(moves + half * Q, which), everywhere<I>(half)};
    for (int64_t i = 1, h = half + 1; h < L; i++, h++) {
        if (i < half)
            low.take(score[i] + entries<R, N>(moves + i * Q, which), i);
        high.take(score[h] + entries<R, N>(moves + h * Q, which), h);
    }
    return low.top < high.top ? high.place : low.place;
}

// The tags [words] of the best paths of posts abreast, of the scores [words, L] of the best ways to each tag; of each
// post the number of its last word, and its tag.
template <typename R, int N>
void followed_back(const R *moves, int64_t L, int64_t Q, const typename Lanes<R>::Type *scores, int64_t words,
                   typename Lanes<R>::Whole last, typename Lanes<R>::Whole tags_of_last,
                   typename Lanes<R>::Whole *tags) {
    typedef typename Lanes<R>::Whole I;
    I tag = {};
    for (int64_t t = words - 1; t >= 0; t--) {
        tag = last == everywhere<I>(t) ? tags_of_last : tag;
        tags[t] = tag;
        if (t)
            tag = origins<R, N>(moves, L, Q, scores + (t - 1) * L, tag);
    }
}

// next[j] += max over i of score[i] + m[i, j] for N tags of posts abreast; m's rows are Q entries apart.
template <typename R, int N>
inline void best_abreast(const R *m, int64_t L, int64_t Q, const typename Lanes<R>::Type *score,
                         typename Lanes<R>::Type *next) {
    typedef typename Lanes<R>::Type V;
    V top[N];
#pragma GCC unroll 32
    for (int k = 0; k < N; k++)
        top[k] = score[0] + m[k];
    for (int64_t i = 1; i < L; i++) {
        const V own = score[i];
#pragma GCC unroll 32
        for (int k = 0; k < N; k++) {
            const V x = own + m[i * Q + k];
            top[k] = top[k] < x ? x : top[k];
        }
    }
#pragma GCC unroll 32
    for (int k = 0; k < N; k++)
        next[k] += top[k];
}

// `best_abreast` for n tags, n known at run time.
template <typename R, int N>
inline void n_best_abreast(int64_t n, const R *m, int64_t L, int64_t Q, const typename Lanes<R>::Type *score,
                           typename Lanes<R>::Type *next) {
    if (n == N)
        best_abreast<R, N>(m, L, Q, score, next);
    else if constexpr (N > 1)
        n_best_abreast<R, N - 1>(n, m, L, Q, score, next);
}

// The next columns of rows of `size` entries, from the one at `first` on, into their places in `out`; returns the
// number of the first column that is not there yet.
template <typename R>
inline int64_t columns_from(const R *const *rows, int64_t size, int64_t first, typename Lanes<R>::Type *out) {
    typedef typename Lanes<R>::Type V;
    constexpr int64_t W = BYTES / sizeof(R);
    if (size < W) {
        for (int64_t c = 0; c < size; c++)
            for (int64_t k = 0; k < W; k++)
                out[c][k] = rows[k][c];
        return size;
    }
    const int64_t begin = std::min(first, size - W); // a last block begins within the one before it
    V block[W];
    for (int64_t k = 0; k < W; k++)
        std::memcpy(block + k, rows[k] + begin, sizeof(V));
    turn(block);
    if (begin == first)
        for (int64_t k = 0; k < W; k++)
            out[first + k] = block[k];
    else
        std::memcpy(out + first, block + (first - begin), size_t(begin + W - first) * sizeof(V));
    return begin + W;
}

// `moves` [L, Q]: transitions in rows of whole vectors.
template <typename R>
void viterbi_abreast(const int64_t *group, int64_t posts, int64_t T, int64_t L, int64_t Q, const R *emissions,
                     const int64_t *lengths, const R *moves, const R *start, const R *end, int64_t *paths, R *best) {
    typedef typename Lanes<R>::Type V;
    typedef typename Lanes<R>::Whole I;
    constexpr int64_t W = BYTES / sizeof(R), MOST = BYTES == 64 ? 24 : 11; // as many tags as there are registers for
    const R *rows[W];
    int64_t n[W], longest = 0, shortest = T;
    I last, tags_of_last = {};
    for (int64_t k = 0; k < W; k++) { // lanes without a post repeat the first
        const int64_t b = group[k < posts ? k : 0];
        rows[k] = emissions + b * T * L;
        n[k] = lengths[b];
        last[k] = n[k] - 1;
        longest = std::max(longest, n[k]);
        shortest = std::min(shortest, n[k]);
    }
    V *scores = reinterpret_cast<V *>(scratch(0, size_t(T * L) * WIDTH));
    I *tags = reinterpret_cast<I *>(scratch(1, size_t(longest) * WIDTH));
    const int64_t blocks = (L + MOST - 1) / MOST;
    int64_t there = 0; // emissions are read into the scores' places some words ahead
    for (int64_t t = 0; t < longest; t++) {
        V *score = scores + t * L;
        while (there < (t + 1) * L)
            there = columns_from(rows, T * L, there, scores);
        if (t)
            for (int64_t c = 0, k = 0; k < blocks; k++) {
                const int64_t tags_here = (L - c + blocks - k - 1) / (blocks - k);
                n_best_abreast<R, MOST>(tags_here, moves + c, L, Q, score - L, score + c);
                c += tags_here;
            }
        else
            for (int64_t j = 0; j < L; j++)
                score[j] += start[j];
        if (t + 1 < shortest)
            continue;
        for (int64_t k = 0; k < posts; k++)
            if (n[k] == t + 1) {
                int64_t tag = 0;
                for (int64_t j = 1; j < L; j++)
                    if (score[j][k] + end[j] > score[tag][k] + end[tag])
                        tag = j;
                tags_of_last[k] = tag;
                best[group[k]] = score[tag][k] + end[tag];
            }
    }
    constexpr bool LOOKS_UP = std::is_same<R, float>::value ? LOOKS_UP_FLOATS : LOOKS_UP_DOUBLES;
    switch (LOOKS_UP ? Q / W : 0) {
    case 1: followed_back<R, 1>(moves, L, Q, scores, longest, last, tags_of_last, tags); break;
    case 2: followed_back<R, 2>(moves, L, Q, scores, longest, last, tags_of_last, tags); break;
    case 3: followed_back<R, 3>(moves, L, Q, scores, longest, last, tags_of_last, tags); break;
    default: followed_back<R, 0>(moves, L, Q, scores, longest, last, tags_of_last, tags);
    }
    for (int64_t k = 0; k < posts; k++) {
        int64_t *path = paths + group[k] * T;
        for (int64_t t = 0; t < n[k]; t++)
            path[t] = tags[t][k];
        std::fill(path + n[k], path + T, 0);
    }
}

// out = max over i of x[i] + m[i], for N vectors of columns, m [L, Q].
template <typename R, int N> inline void best_columns(const R *m, int64_t L, int64_t Q, const R *x, R *out) {
    typedef typename Lanes<R>::Type V;
    constexpr int64_t LANES = BYTES / sizeof(R);
    V even[N], odd[N];
#pragma GCC unroll 8
    for (int k = 0; k < N; k++)
        even[k] = odd[k] = *(const V *)(m + k * LANES) + x[0];
    for (int64_t i = 1; i < L; i += 2) {
        const int64_t o = i + 1 < L ? i + 1 : i;
#pragma GCC unroll 8
        for (int k = 0; k < N; k++) {
            V a = *(const V *)(m + i * Q + k * LANES) + x[i], b = *(const V *)(m + o * Q + k * LANES) + x[o];
            even[k] = even[k] < a ? a : even[k];
            odd[k] = odd[k] < b ? b : odd[k];
        }
    }
#pragma GCC unroll 8
    for (int k = 0; k < N; k++)
        *(V *)(out + k * LANES) = even[k] < odd[k] ? odd[k] : even[k];
}

// out = m + x for a row of L tags; where `room` says so, up to the end of a last vector.
template <typename R> inline void add_row(const R *m, const R *x, int64_t L, int64_t Q, bool room, R *out) {
    typedef typename Lanes<R>::Type V;
    if (!room) {
        for (int64_t j = 0; j < L; j++)
            out[j] = m[j] + x[j];
        return;
    }
    for (int64_t c = 0; c < Q; c += BYTES / sizeof(R)) {
        V own;
        std::memcpy(&own, x + c, sizeof own);
        *(V *)(out + c) = *(const V *)(m + c) + own;
    }
}

// A bit for each lane, the first one the lowest: whether it is set there.
template <typename I> inline uint64_t lanes(I set) {
    constexpr bool FLOATS = sizeof(set[0]) == 4;
#if BYTES == 64
    if constexpr (FLOATS)
        return _mm512_movepi32_mask((__m512i)set);
    else
        return _mm512_movepi64_mask((__m512i)set);
#elif defined(__AVX__)
    if constexpr (FLOATS)
        return uint64_t(_mm256_movemask_ps((__m256)set));
    else
        return uint64_t(_mm256_movemask_pd((__m256d)set));
#else
    uint64_t bits = 0;
    for (int64_t k = 0; k < BYTES / int64_t(sizeof(set[0])); k++)
        bits |= uint64_t(set[k] & 1) << k;
    return bits;
#endif
}

// The first i with a[i] + b[i] = target; 0 where there is none (NaN).
template <typename R> inline int64_t first_equal(const R *a, const R *b, R target, int64_t L, int64_t Q) {
    typedef typename Lanes<R>::Type V;
    constexpr int64_t W = BYTES / sizeof(R);
    for (int64_t from = 0; from < Q; from += 64) {
        uint64_t bits = 0; // of 64 places at once: a branch for each vector would be guessed wrong
        for (int64_t c = from; c < Q && c < from + 64; c += W)
            bits |= lanes(*(const V *)(a + c) + *(const V *)(b + c) == V{} + target) << (c - from);
        const int64_t found = from + (bits ? __builtin_ctzll(bits) : L);
        if (found < L)
            return found;
    }
    return 0;
}

template <typename R>
int64_t viterbi(int64_t B, int64_t T, int64_t L, const R *emissions, const int64_t *lengths,
                const R *transitions, const R *start, const R *end, int64_t *paths, R *best) {
    // Posts whose paths are followed back together: each step of one waits for the step before.
    constexpr int64_t LANES = BYTES / sizeof(R), GROUP = 4;
    const int64_t Q = (L + LANES - 1) / LANES * LANES, together = B < GROUP ? B : GROUP;
    for (int64_t b = 0; b < B; b++)
        if (lengths[b] < 1 || lengths[b] > T)
            return BAD_LENGTH;
    R *moves = reinterpret_cast<R *>(scratch(2, size_t(2 * L * Q))), *transposed = moves + L * Q;
    for (int64_t i = 0; i < L; i++)
        for (int64_t j = 0; j < Q; j++)
            moves[i * Q + j] = j < L ? transitions[i * L + j] : R(-INFINITY);
    if (B >= ABREAST) {
        const std::vector<int64_t> order = by_length(B, lengths);
        for (int64_t g = 0; g < B; g += LANES)
            viterbi_abreast(order.data() + g, std::min(LANES, B - g), T, L, Q, emissions, lengths, moves, start, end,
                            paths, best);
        return 0;
    }
    for (int64_t j = 0; j < L; j++)
        for (int64_t i = 0; i < Q; i++)
            transposed[j * Q + i] = i < L ? transitions[i * L + j] : R(-INFINITY);
    R *scores = reinterpret_cast<R *>(scratch(3, size_t(2 * together * T * Q))), *reached = scores + together * T * Q;
    for (int64_t group = 0; group < B; group += GROUP) {
        const int64_t posts = B - group < GROUP ? B - group : GROUP;
        int64_t longest = 0;
        for (int64_t g = 0; g < posts; g++) {
            const int64_t b = group + g, n = lengths[b];
            const R *own = emissions + b * T * L;
            R *score = scores + g * T * Q, *reach = reached + g * T * Q;
            longest = n > longest ? n : longest;
            add_row(start, own, L, Q, false, score);
            for (int64_t t = 1; t < n; t++) {
                const R *x = score + (t - 1) * Q;
                R *y = reach + t * Q;
                int64_t c = 0;
                for (; Q - c > 4 * LANES; c += 3 * LANES)
                    best_columns<R, 3>(moves + c, L, Q, x, y + c);
                switch ((Q - c) / LANES) {
                case 1: best_columns<R, 1>(moves + c, L, Q, x, y + c); break;
                case 2: best_columns<R, 2>(moves + c, L, Q, x, y + c); break;
                case 3: best_columns<R, 3>(moves + c, L, Q, x, y + c); break;
                case 4: best_columns<R, 4>(moves + c, L, Q, x, y + c); break;
                }
                add_row(y, own + t * L, L, Q, t * L + Q <= T * L, score + t * Q);
            }
            const R *x = score + (n - 1) * Q;
            int64_t tag = 0;
            for (int64_t j = 1; j < L; j++)
                if (x[j] + end[j] > x[tag] + end[tag])
                    tag = j;
            best[b] = x[tag] + end[tag];
            for (int64_t t = n; t < T; t++)
                paths[b * T + t] = 0;
            paths[b * T + n - 1] = tag;
        }
        for (int64_t t = longest - 2; t >= 0; t--)
            for (int64_t g = 0; g < posts; g++) {
                int64_t *path = paths + (group + g) * T;
                if (t > lengths[group + g] - 2)
                    continue;
                const int64_t tag = path[t + 1], row = (g * T + t) * Q;
                path[t] = first_equal(scores + row, transposed + tag * Q, reached[row + Q + tag], L, Q);
            }
    }
    return 0;
}

} // namespace
