// Kernels that read several posts abreast: a vector holds the same tag of each. Nothing is padded, and no post's step
// waits for its last. Log-likelihoods with their gradients, and marginals without.

#pragma once

#include "crf_factors.h"

#include <algorithm>
#include <vector>

namespace {

// L entries of each of the rows, from the one at `first` on, as numbers of type C: out[j] holds the j-th of every row.
template <typename R, typename C>
inline void abreast(const R *const *rows, int64_t first, int64_t L, typename Lanes<C>::Type *out) {
    typedef typename Lanes<C>::Type V;
    constexpr int64_t W = BYTES / sizeof(C);
    typedef R Narrow __attribute__((vector_size(W * sizeof(R))));
    int64_t j = 0;
    // A last block may begin within the one before it, where that is less work than single entries are.
    for (; j + W <= L || (L >= W && L - j > W / 4 && j < L); j += W) {
        const int64_t c = j + W <= L ? j : L - W;
        V block[W];
        for (int64_t k = 0; k < W; k++) {
            Narrow row;
            std::memcpy(&row, rows[k] + first + c, sizeof row);
            block[k] = __builtin_convertvector(row, V);
        }
        turn(block);
        for (int64_t k = 0; k < W; k++)
            out[c + k] = block[k];
    }
    for (; j < L; j++)
        for (int64_t k = 0; k < W; k++)
            out[j][k] = C(rows[k][first + j]);
}

// The reverse of `abreast`: columns [L] of WIDTH numbers to a row of L entries each.
template <typename R> inline void apart(const Vec *columns, int64_t L, R *const *rows) {
    typedef R Narrow __attribute__((vector_size(WIDTH * sizeof(R))));
    int64_t j = 0;
    for (; j + WIDTH <= L || (L >= WIDTH && L - j > WIDTH / 4 && j < L); j += WIDTH) {
        const int64_t c = j + WIDTH <= L ? j : L - WIDTH;
        Vec block[WIDTH];
        for (int64_t k = 0; k < WIDTH; k++)
            block[k] = columns[c + k];
        turn(block);
        for (int64_t k = 0; k < WIDTH; k++) {
            Narrow row = __builtin_convertvector(block[k], Narrow);
            std::memcpy(rows[k] + c, &row, sizeof row);
        }
    }
    for (; j < L; j++)
        for (int64_t k = 0; k < WIDTH; k++)
            rows[k][j] = R(columns[j][k]);
}

// The posts by length, so that those which are read abreast end at about the same word.
inline std::vector<int64_t> by_length(int64_t B, const int64_t *lengths) {
    std::vector<int64_t> order(B);
    bool alike = true;
    for (int64_t b = 0; b < B; b++) {
        order[b] = b;
        alike = alike && lengths[b] == lengths[0];
    }
    if (!alike)
        std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return lengths[a] < lengths[b]; });
    return order;
}

// out[j] = Σ_i x[i] m[i, j] for N tags of G times WIDTH posts, m's rows `stride` apart.
template <int N, int G>
inline void step_abreast(const double *m, int64_t stride, int64_t L, const Vec *const *x, Vec *const *out, int64_t c) {
    Vec total[N * G];
    const Vec *from[G];
    for (int g = 0; g < G; g++)
        from[g] = x[g];
#pragma GCC unroll 16
    for (int k = 0; k < N * G; k++)
        total[k] = spread(0);
    for (int64_t i = 0; i < L; i++) {
        Vec own[G];
        for (int g = 0; g < G; g++)
            own[g] = from[g][i];
#pragma GCC unroll 16
        for (int k = 0; k < N; k++) {
            const Vec factor = spread(m[i * stride + c + k]);
#pragma GCC unroll 2
            for (int g = 0; g < G; g++)
                total[k * G + g] += own[g] * factor;
        }
    }
#pragma GCC unroll 16
    for (int k = 0; k < N; k++)
        for (int g = 0; g < G; g++)
            out[g][c + k] = total[k * G + g];
}

// `step_abreast` for n tags, n known at run time.
template <int G, int N>
inline void n_abreast(int64_t n, const double *m, int64_t stride, int64_t L, const Vec *const *x, Vec *const *out,
                      int64_t c) {
    if (n == N)
        step_abreast<N, G>(m, stride, L, x, out, c);
    else if constexpr (N > 1)
        n_abreast<G, N - 1>(n, m, stride, L, x, out, c);
}

// As many tags at once as there are registers for.
template <int G>
inline void steps_abreast(const double *m, int64_t stride, int64_t L, const Vec *const *x, Vec *const *out) {
    constexpr int MOST = (BYTES == 64 ? 24 : 10) / G;
    for (int64_t c = 0, n; c < L; c += n) {
        const int64_t blocks = (L - c + MOST - 1) / MOST;
        n = (L - c + blocks - 1) / blocks;
        n_abreast<G, MOST>(n, m, stride, L, x, out, c);
    }
}

// Messages of WIDTH posts, and of what sum, brought back to the middle of the range, and the factors that they came by;
// `lost` where that cannot be. Returns the logs of what they were divided by.
inline Vec rescale(Vec *message, Vec *factors, Vec total, int64_t L, Bits &lost) {
    lost |= ~((total > 1 / FURTHEST) & (total < FURTHEST));
    const Bits near = (total > 1 / NEAR) & (total < NEAR);
    const Vec by = near ? spread(1) : 1 / total;
    for (int64_t j = 0; j < L; j++) {
        message[j] *= by;
        factors[j] *= by;
    }
    return near ? spread(0) : logarithm<double>(total);
}

// Log-marginals of WIDTH posts' first or last words [L]: impossible starts and ends have factor 0 there, so that they are
// read off the scores. `from` are the logs of what comes from the left, `to` of what comes from the right.
template <typename R> inline void marginals_at_ends(int64_t L, const Vec *from, const Vec *to, Vec *row) {
    Vec top = spread(-INFINITY), total = spread(0);
    for (int64_t j = 0; j < L; j++) {
        row[j] = from[j] + to[j];
        top = top < row[j] ? row[j] : top;
    }
    for (int64_t j = 0; j < L; j++)
        total += exponential<R>(row[j] - top);
    top += logarithm<R>(total);
    for (int64_t j = 0; j < L; j++)
        row[j] -= top;
}

// Forward-backward over WIDTH posts; room for `room(L, words)` vectors at `place`.
template <typename R> struct PostsAbreast {
    const int64_t size; // L
    const R *start, *end, *rows[WIDTH];
    R *outs[WIDTH];
    int64_t longest = 0, shortest = INT64_MAX;
    Bits words, lost = {};
    Vec least = spread(INFINITY), log_scale = spread(0);
    Vec *left, *factors, *u, *w, *row, *first, *from, *to;

    static int64_t room(int64_t L, int64_t words) { return (2 * words + 6) * L; }

    PostsAbreast(const int64_t *group, int64_t posts, int64_t L, int64_t T, int64_t most, const R *emissions,
              const int64_t *lengths, const R *start, const R *end, R *result, Vec *place)
        : size(L), start(start), end(end) {
        for (int64_t k = 0; k < WIDTH; k++) { // lanes without a post repeat the first
            const int64_t b = group[k < posts ? k : 0];
            rows[k] = emissions + b * T * L;
            outs[k] = result ? result + b * T * L : nullptr;
            words[k] = lengths[b];
            longest = std::max(longest, lengths[b]);
            shortest = std::min(shortest, lengths[b]);
        }
        u = place;
        w = u + L, row = w + L, first = row + L, from = first + L, to = from + L;
        left = to + L, factors = left + most * L;
    }

    // The factors of word t. (What loops read is taken out of `this` first: whatever is written might change it.)
    void read(int64_t t) {
        const int64_t L = size;
        Vec *e = factors + t * L;
        abreast<R, double>(rows, t * L, L, e);
        if (!t)
            for (int64_t j = 0; j < L; j++)
                first[j] = e[j] + double(start[j]);
        Bits within = ~Bits{};
        for (int64_t j = 0; j < L; j++)
            within &= in_range(e[j]);
        if (all(within))
            for (int64_t j = 0; j < L; j++)
                e[j] = exponential_within<R>(e[j]);
        else
            for (int64_t j = 0; j < L; j++)
                e[j] = exponential<R>(e[j]);
        if (t >= shortest)
            for (int64_t j = 0; j < L; j++)
                e[j] = words > t ? e[j] : spread(1);
    }

    // message[j] = factor of word t times u[j]; `real` says for which posts that is a step of the recursion.
    void multiply(int64_t t, Bits real, Vec *message) {
        const int64_t L = size;
        const Vec *y = u;
        Vec *e = factors + t * L;
        Vec lower = spread(INFINITY), total = spread(0);
        for (int64_t j = 0; j < L; j++) {
            const Vec v = y[j], x = e[j] * v;
            message[j] = x;
            total += x;
            const Vec less = x < v ? x : v;
            lower = less < lower ? less : lower;
        }
        lower = real ? lower : spread(INFINITY);
        least = lower < least ? lower : least;
        if (!all((total > 1 / NEAR) & (total < NEAR))) {
            const Vec divided = rescale(message, e, total, L, lost);
            log_scale += words > t ? divided : spread(0);
        }
    }

    // Log-marginals of word t; u holds the message from the right.
    void answer(int64_t t) {
        const int64_t L = size;
        const Vec *x = left + t * L, *y = u;
        Vec *out = row;
        const Bits last = words == t + 1;
        if (t && t + 1 < longest) {
            Vec even = spread(0), odd = spread(0);
            for (int64_t j = 0; j < L; j++) {
                out[j] = x[j] * y[j];
                (j % 2 ? odd : even) += out[j];
            }
            logarithms<R>(out, L, 1 / (even + odd));
            R *own[WIDTH];
            for (int64_t k = 0; k < WIDTH; k++)
                own[k] = outs[k] + t * L;
            if (t + 1 < shortest)
                apart(out, L, own);
            else
                write(t, words > t + 1);
        }
        if (!t || t + 1 >= shortest) {
            for (int64_t j = 0; j < L; j++) {
                from[j] = t ? logarithm<R>(x[j]) : first[j];
                to[j] = last ? spread(end[j]) : logarithm<R>(u[j]);
            }
            marginals_at_ends<R>(L, from, to, row);
            write(t, t ? last : ~Bits{});
        }
    }

    void write(int64_t t, Bits those) const {
        for (int64_t k = 0; k < WIDTH; k++)
            for (int64_t j = 0; j < size && those[k]; j++)
                outs[k][t * size + j] = R(row[j][k]);
    }
};

inline int64_t longest_of(const int64_t *group, int64_t posts, const int64_t *lengths) {
    int64_t longest = 0;
    for (int64_t k = 0; k < posts; k++)
        longest = std::max(longest, lengths[group[k]]);
    return longest;
}

// At most WIDTH G posts with their forward messages; what is answered of them goes into `result`.
template <typename R, int G>
std::vector<PostsAbreast<R>> forth(const int64_t *group, int64_t posts, const Factors &f, int64_t T, const R *emissions,
                                   const int64_t *lengths, const R *start, const R *end, R *result) {
    typedef PostsAbreast<R> Posts;
    const int64_t L = f.L, longest = longest_of(group, posts, lengths), room = Posts::room(L, longest);
    Vec *place = reinterpret_cast<Vec *>(scratch(0, size_t(G * room * WIDTH)));
    std::vector<Posts> all;
    all.reserve(G);
    for (int g = 0; g < G; g++)
        all.emplace_back(group + g * WIDTH, std::min(WIDTH, posts - g * WIDTH), L, T, longest, emissions, lengths, start,
                         end, result, place + g * room);
    for (int64_t t = 0; t < longest; t++) {
        const Vec *x[G];
        Vec *u[G];
        for (int g = 0; g < G; g++) {
            all[g].read(t);
            x[g] = all[g].left + (t - 1) * L;
            u[g] = all[g].u;
        }
        if (t)
            steps_abreast<G>(f.moves, f.P, L, x, u);
        else
            for (int g = 0; g < G; g++)
                for (int64_t j = 0; j < L; j++)
                    u[g][j] = spread(f.start[j]);
        for (int g = 0; g < G; g++)
            all[g].multiply(t, t ? all[g].words > t : Bits{}, all[g].left + t * L); // a start may be impossible
    }
    return all;
}

// sums[i, j] += Σ_s x[s, i] y[s, j] over N words.
template <int N> inline void outer_abreast(const Vec *x, const Vec *y, int64_t L, Vec *sums) {
    for (int64_t i = 0; i < L; i++) {
        Vec own[N];
#pragma GCC unroll 4
        for (int s = 0; s < N; s++)
            own[s] = x[s * L + i];
        for (int64_t j = 0; j < L; j++) {
            Vec total = sums[i * L + j];
#pragma GCC unroll 4
            for (int s = 0; s < N; s++)
                total += own[s] * y[s * L + j];
            sums[i * L + j] = total;
        }
    }
}

// log Z of at most WIDTH G posts; how many were left out. Where `own` is given, `sign` times the gradients of log Z: for
// emissions into `own` [B, T, L], for transitions into `sums` [B, L, L].
//
// Backward messages need no scaling: the forward ones are multiplied by factors that hold what they were divided by, so
// that Σ_j left[t, j] u[j] stays what it is at the last word.
template <typename R, int G>
int64_t partition_abreast(const int64_t *group, int64_t posts, const Factors &f, int64_t T, const R *emissions,
                          const int64_t *lengths, const R *start, const R *end, double sign, R *own, double *sums,
                          double *log_z, uint8_t *beyond) {
    typedef PostsAbreast<R> Posts;
    const int64_t L = f.L;
    Vec *moved = reinterpret_cast<Vec *>(scratch(1, size_t(L * L * WIDTH)));
    std::vector<Posts> all = forth<R, G>(group, posts, f, T, emissions, lengths, start, end, own);
    const int64_t longest = longest_of(group, posts, lengths);
    Vec partition[G];
    for (int g = 0; g < G; g++) {
        Posts &here = all[g];
        partition[g] = spread(1);
        for (int64_t t = here.shortest - 1; t < longest; t++) {
            Vec z = spread(0);
            for (int64_t j = 0; j < L; j++)
                z += here.left[t * L + j] * f.end[j];
            partition[g] = here.words == t + 1 ? z : partition[g];
        }
        for (int64_t j = 0; j < L; j++)
            here.u[j] = spread(0);
    }
    for (int64_t t = longest - 1; own && t >= 0; t--) {
        const Vec *x[G];
        Vec *u[G];
        for (int g = 0; g < G; g++) {
            Posts &here = all[g];
            const Bits last = here.words == t + 1;
            const Vec at_end = sign / partition[g];
            const Vec *left = here.left + t * L;
            Vec *y = here.u, *e = here.factors + t * L, *shares = here.row;
            if (t + 1 >= here.shortest)
                for (int64_t j = 0; j < L; j++)
                    y[j] = last ? at_end * f.end[j] : y[j];
            for (int64_t j = 0; j < L; j++) {
                const Vec v = y[j];
                shares[j] = left[j] * v;
                e[j] *= v;
            }
            R *rows[WIDTH];
            for (int64_t k = 0; k < WIDTH; k++)
                rows[k] = here.outs[k] + t * L;
            apart(shares, L, rows);
            x[g] = e;
            u[g] = y;
        }
        if (t)
            steps_abreast<G>(f.back, f.P, L, x, u);
    }
    int64_t found = 0;
    for (int g = 0; g < G; g++) {
        const Posts &here = all[g];
        const int64_t first = g * WIDTH, there = std::min(WIDTH, posts - first);
        const Vec whole = here.log_scale + logarithm<double>(partition[g]);
        for (int64_t k = 0; k < there; k++) {
            const int64_t b = group[first + k];
            log_z[b] = whole[k];
            beyond[b] = !f.within || here.lost[k] || !(here.least[k] >= SMALLEST) || !(partition[g][k] > SMALLEST) ||
                        !std::isfinite(whole[k]);
            found += beyond[b];
            if (own)
                std::memset(own + (b * T + longest) * L, 0, size_t((T - longest) * L) * sizeof(R));
        }
        if (!own)
            continue;
        for (int64_t i = 0; i < L * L; i++)
            moved[i] = spread(0);
        int64_t t = 1;
        for (; t + 4 <= here.longest; t += 4)
            outer_abreast<4>(here.left + (t - 1) * L, here.factors + t * L, L, moved);
        for (; t < here.longest; t++)
            outer_abreast<1>(here.left + (t - 1) * L, here.factors + t * L, L, moved);
        for (int64_t i = 0; i < L; i++)
            for (int64_t j = 0; j < L; j++)
                moved[i * L + j] *= f.moves[i * f.P + j];
        double *rows[WIDTH];
        for (int64_t k = 0; k < WIDTH; k++)
            rows[k] = sums + group[k < there ? first + k : first] * L * L;
        apart(moved, L * L, rows);
    }
    return found;
}

// Log-marginals of at most WIDTH G posts; how many were left out.
template <typename R, int G>
int64_t marginals_abreast(const int64_t *group, int64_t posts, const Factors &f, int64_t T, const R *emissions,
                          const int64_t *lengths, const R *start, const R *end, R *result, uint8_t *beyond) {
    typedef PostsAbreast<R> Posts;
    const int64_t L = f.L, P = f.P;
    std::vector<Posts> all = forth<R, G>(group, posts, f, T, emissions, lengths, start, end, result);
    const int64_t longest = longest_of(group, posts, lengths);
    for (Posts &own : all)
        for (int64_t j = 0; j < L; j++)
            own.u[j] = spread(f.end[j]);
    for (int64_t t = longest - 1; t >= 0; t--) {
        const Vec *x[G];
        Vec *u[G];
        for (int g = 0; g < G; g++) {
            all[g].answer(t);
            if (t)
                all[g].multiply(t, all[g].words > t + 1, all[g].w); // and so an end
            x[g] = all[g].w;
            u[g] = all[g].u;
        }
        if (!t)
            break;
        steps_abreast<G>(f.back, P, L, x, u);
        for (Posts &own : all)
            if (t >= own.shortest) // the word before is its post's last, or behind it
                for (int64_t j = 0; j < L; j++)
                    own.u[j] = own.words <= t ? spread(f.end[j]) : own.u[j];
    }
    int64_t found = 0;
    for (int64_t k = 0; k < posts; k++) {
        const Posts &own = all[k / WIDTH];
        const int64_t b = group[k], n = lengths[b], lane = k % WIDTH;
        beyond[b] = !f.within || own.lost[lane] || !(own.least[lane] >= SMALLEST);
        found += beyond[b];
        for (int64_t t = n; t < T; t++)
            std::memcpy(result + (b * T + t) * L, result + (b * T + n - 1) * L, size_t(L) * sizeof(R));
    }
    return found;
}

} // namespace
