// The best paths of posts: several abreast, or one by one with a row of tags in vectors.

#pragma once

#include "crf_abreast.h"

namespace {

// Best of score[i] + m[i, j] over i for N <= 4 tags j on, and the first i that has it, a byte for each tag.
template <typename R, int N>
inline void best_abreast(const R *m, int64_t L, const typename Lanes<R>::Type *score, typename Lanes<R>::Type *best,
                         typename Lanes<R>::Whole &from) {
    typedef typename Lanes<R>::Type V;
    typedef typename Lanes<R>::Whole I;
    V top[N];
    I first[N];
    I one = I{} + 1, i = I{};
#pragma GCC unroll 8
    for (int k = 0; k < N; k++) {
        top[k] = score[0] + m[k];
        first[k] = I{};
    }
    for (int64_t r = 1; r < L; r++) {
        i += one;
        const V own = score[r];
#pragma GCC unroll 8
        for (int k = 0; k < N; k++) {
            const V x = own + m[r * L + k], greater = top[k] < x ? x : top[k];
            const I better = greater != top[k];
            top[k] = greater;
            first[k] = better ? i : first[k];
        }
    }
#pragma GCC unroll 8
    for (int k = 0; k < N; k++) {
        best[k] = top[k];
        from = k ? from | first[k] << 8 * k : first[k];
    }
}

template <typename R>
void viterbi_abreast(const int64_t *group, int64_t posts, int64_t T, int64_t L, const R *emissions,
                     const int64_t *lengths, const R *transitions, const R *start, const R *end, int64_t *paths,
                     R *best) {
    typedef typename Lanes<R>::Type V;
    typedef typename Lanes<R>::Whole I;
    constexpr int64_t W = BYTES / sizeof(R);
    const int64_t quarters = (L + 3) / 4;
    const R *rows[W];
    int64_t *own_paths[W];
    int64_t n[W], longest = 0, shortest = T, tag[W];
    for (int64_t k = 0; k < W; k++) { // lanes without a post repeat the first
        const int64_t b = group[k < posts ? k : 0];
        rows[k] = emissions + b * T * L;
        own_paths[k] = paths + b * T;
        n[k] = lengths[b];
        longest = std::max(longest, n[k]);
        shortest = std::min(shortest, n[k]);
    }
    V *score = reinterpret_cast<V *>(scratch(0, size_t(3 * L) * WIDTH)), *next = score + L, *own = next + L;
    I *from = reinterpret_cast<I *>(scratch(1, size_t(longest * quarters) * WIDTH));
    for (int64_t t = 0; t < longest; t++) {
        abreast<R, R>(rows, t * L, L, own);
        if (t) {
            int64_t j = 0;
            I *origin = from + t * quarters;
            for (; j + 4 <= L; j += 4)
                best_abreast<R, 4>(transitions + j, L, score, next + j, *origin++);
            switch (L - j) {
            case 1: best_abreast<R, 1>(transitions + j, L, score, next + j, *origin); break;
            case 2: best_abreast<R, 2>(transitions + j, L, score, next + j, *origin); break;
            case 3: best_abreast<R, 3>(transitions + j, L, score, next + j, *origin); break;
            }
            for (j = 0; j < L; j++)
                score[j] = next[j] + own[j];
        } else
            for (int64_t j = 0; j < L; j++)
                score[j] = own[j] + start[j];
        if (t + 1 < shortest)
            continue;
        for (int64_t k = 0; k < posts; k++)
            if (n[k] == t + 1) {
                tag[k] = 0;
                for (int64_t j = 1; j < L; j++)
                    if (score[j][k] + end[j] > score[tag[k]][k] + end[tag[k]])
                        tag[k] = j;
                best[group[k]] = score[tag[k]][k] + end[tag[k]];
            }
    }
    const uint8_t *origins = reinterpret_cast<const uint8_t *>(from);
    int64_t places[256]; // of a tag's origin among those of a word
    for (int64_t j = 0; j < L; j++)
        places[j] = int64_t(sizeof(I)) * (j / 4) + j % 4;
    for (int64_t t = longest - 1; t >= 0; t--) {
        const uint8_t *word = origins + t * quarters * int64_t(sizeof(I));
        for (int64_t k = 0; k < posts; k++)
            if (t < n[k]) {
                own_paths[k][t] = tag[k];
                if (t)
                    tag[k] = word[places[tag[k]] + k * int64_t(sizeof(R))];
            }
    }
    for (int64_t k = 0; k < posts; k++)
        for (int64_t t = n[k]; t < T; t++)
            own_paths[k][t] = 0;
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

// The first i with a[i] + b[i] = target; without branches, so that several run side by side. L where there is none
// (NaN).
template <typename R>
inline int64_t first_equal(const R *a, const R *b, R target, const R *numbers, int64_t L, int64_t Q) {
    typedef typename Lanes<R>::Type V;
    constexpr int64_t LANES = BYTES / sizeof(R);
    V none = V{} + R(L), found = none;
    for (int64_t c = 0; c < Q; c += LANES) {
        V here = *(const V *)(a + c) + *(const V *)(b + c) == V{} + target ? *(const V *)(numbers + c) : none;
        found = here < found ? here : found;
    }
    R first = found[0];
    for (int64_t k = 1; k < LANES; k++)
        first = found[k] < first ? found[k] : first;
    return int64_t(first);
}

template <typename R>
int64_t viterbi(int64_t B, int64_t T, int64_t L, const R *emissions, const int64_t *lengths,
                const R *transitions, const R *start, const R *end, int64_t *paths, R *best) {
    // Posts whose paths are followed back together: each step of one waits for the step before.
    constexpr int64_t LANES = BYTES / sizeof(R), GROUP = 4;
    const int64_t Q = (L + LANES - 1) / LANES * LANES;
    Buffer room(2 * (GROUP * T + L) * Q + Q);
    R *numbers = reinterpret_cast<R *>(room.data), *moves = numbers + Q, *transposed = moves + L * Q;
    R *scores = transposed + L * Q, *reached = scores + GROUP * T * Q;
    for (int64_t i = 0; i < Q; i++)
        numbers[i] = R(i);
    for (int64_t i = 0; i < L; i++)
        for (int64_t j = 0; j < L; j++)
            transposed[j * Q + i] = moves[i * Q + j] = transitions[i * L + j];
    for (int64_t b = 0; b < B; b++)
        if (lengths[b] < 1 || lengths[b] > T)
            return BAD_LENGTH;
    if (B >= ABREAST && L <= 256) {
        const std::vector<int64_t> order = by_length(B, lengths);
        for (int64_t g = 0; g < B; g += LANES)
            viterbi_abreast(order.data() + g, std::min(LANES, B - g), T, L, emissions, lengths, transitions, start, end,
                            paths, best);
        return 0;
    }
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
                const int64_t from =
                    first_equal(scores + row, transposed + tag * Q, reached[row + Q + tag], numbers, L, Q);
                path[t] = from < L ? from : 0;
            }
    }
    return 0;
}

} // namespace
