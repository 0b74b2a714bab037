// Kernels of the linear-chain CRF on the CPU. models/crf.py defines what they compute, models/crf_kernels.py calls them.
//
// Messages are kept in probability space in double precision, scaled where they need it (after Rabiner, "A tutorial on
// hidden Markov models", 1989, §V.A), so that a step is a matrix-vector product. A post in which an entry of a message
// falls below SMALLEST is reported instead of computed: its scores are too far apart for probability space.
//
// Rows of tags are padded to whole vectors: P entries for L tags. "Padding" below means these.

#include "crf_viterbi.h"

namespace {

// out = x M for N vectors of columns, M [rows, P]. `rows` is even: matrices have a row of zeros more than tags where
// those are odd, and so have sums.
template <int N> inline void columns(const double *m, int64_t rows, int64_t P, const double *x, double *out) {
    Vec even[N], odd[N];
#pragma GCC unroll 8
    for (int k = 0; k < N; k++)
        even[k] = odd[k] = spread(0);
    for (int64_t i = 0; i < rows; i += 2) {
        const Vec a = spread(x[i]), b = spread(x[i + 1]);
#pragma GCC unroll 8
        for (int k = 0; k < N; k++) {
            even[k] += a * at(m + i * P, k * WIDTH);
            odd[k] += b * at(m + (i + 1) * P, k * WIDTH);
        }
    }
#pragma GCC unroll 8
    for (int k = 0; k < N; k++)
        at(out, k * WIDTH) = even[k] + odd[k];
}

inline void product(const double *m, int64_t rows, int64_t P, const double *x, double *out) {
    int64_t c = 0;
    for (; P - c > 6 * WIDTH; c += 4 * WIDTH)
        columns<4>(m + c, rows, P, x, out + c);
    switch ((P - c) / WIDTH) {
    case 1: return columns<1>(m + c, rows, P, x, out + c);
    case 2: return columns<2>(m + c, rows, P, x, out + c);
    case 3: return columns<3>(m + c, rows, P, x, out + c);
    case 4: return columns<4>(m + c, rows, P, x, out + c);
    case 5: return columns<5>(m + c, rows, P, x, out + c);
    case 6: return columns<6>(m + c, rows, P, x, out + c);
    }
}

// sums [rows, P] += a^T b over rows of a and b [steps, P].
template <int N>
inline void outer_columns(const double *a, const double *b, int64_t steps, int64_t rows, int64_t P, double *sums) {
    for (int64_t i = 0; i < rows; i += 2) {
        Vec first[N], second[N];
#pragma GCC unroll 8
        for (int k = 0; k < N; k++)
            first[k] = second[k] = spread(0);
        for (int64_t s = 0; s < steps; s++) {
            const Vec p = spread(a[s * P + i]), q = spread(a[s * P + i + 1]);
#pragma GCC unroll 8
            for (int k = 0; k < N; k++) {
                first[k] += p * at(b + s * P, k * WIDTH);
                second[k] += q * at(b + s * P, k * WIDTH);
            }
        }
#pragma GCC unroll 8
        for (int k = 0; k < N; k++) {
            at(sums + i * P, k * WIDTH) += first[k];
            at(sums + (i + 1) * P, k * WIDTH) += second[k];
        }
    }
}

inline void outer(const double *a, const double *b, int64_t steps, int64_t rows, int64_t P, double *sums) {
    int64_t c = 0;
    for (; P - c > 6 * WIDTH; c += 4 * WIDTH)
        outer_columns<4>(a, b + c, steps, rows, P, sums + c);
    switch ((P - c) / WIDTH) {
    case 1: return outer_columns<1>(a, b + c, steps, rows, P, sums + c);
    case 2: return outer_columns<2>(a, b + c, steps, rows, P, sums + c);
    case 3: return outer_columns<3>(a, b + c, steps, rows, P, sums + c);
    case 4: return outer_columns<4>(a, b + c, steps, rows, P, sums + c);
    case 5: return outer_columns<5>(a, b + c, steps, rows, P, sums + c);
    case 6: return outer_columns<6>(a, b + c, steps, rows, P, sums + c);
    }
}

// One direction along a post of n words: rows `first`, `first + step`, ...
struct Walk {
    int64_t n, first, step;
    Walk(int64_t n, bool reverse) : n(n), first(reverse ? n - 1 : 0), step(reverse ? -1 : 1) {}
    int64_t row(int64_t s) const { return first + s * step; }
};

// exp of a post's emissions, `size` of them; room is needed for WIDTH more.
template <typename R> inline void exponentials(const R *emissions, int64_t size, double *factors) {
    typedef R Narrow __attribute__((vector_size(WIDTH * sizeof(R))));
    Bits within = ~Bits{};
    int64_t i = 0;
    for (; i + WIDTH <= size; i += WIDTH) {
        Narrow own;
        std::memcpy(&own, emissions + i, sizeof own);
        Vec x = __builtin_convertvector(own, Vec);
        within &= in_range(x);
        x = exponential_within<R>(x);
        std::memcpy(factors + i, &x, sizeof x);
    }
    const int64_t whole = all(within) ? i : 0;
    for (i = whole; i < size + WIDTH; i++)
        factors[i] = i < size ? double(emissions[i]) : 0;
    for (i = whole; i < size; i += WIDTH) {
        Vec x = exponential<R>(unaligned(factors + i));
        std::memcpy(factors + i, &x, sizeof x);
    }
}

// Messages after[t] = e_t · before[t], before[t] = after[t - 1] M, where e_t is row t of `factors` [n, L] and before[0]
// is `init`. Where a message's sum leaves the middle of the range, the row's factors are scaled instead of the message,
// so that the recursion holds exactly. Rows of `before` lie `stride` apart: P, or 0 to keep none. Padding of `before`
// is 1, of `after` 0. Returns the log of what the last message was scaled by, NaN for a post that probability space
// cannot hold.
inline double messages(Walk walk, int64_t L, int64_t P, double *factors, const double *moves, const double *init,
                       double *after, double *before, int64_t stride) {
    double log_scale = 0;
    alignas(BYTES) double filled[WIDTH] = {};
    for (int64_t j = L; j < P; j++)
        filled[j % WIDTH] = 1;
    const Vec padding = at(filled, 0);
    Vec least = spread(INFINITY);
    for (int64_t s = 0; s < walk.n; s++) {
        const int64_t t = walk.row(s);
        double *m = after + t * P, *u = before + t * stride, *e = factors + t * L;
        if (s == 0)
            std::memcpy(u, init, size_t(P) * sizeof(double));
        else
            product(moves, L + L % 2, P, after + walk.row(s - 1) * P, u);
        Vec total = spread(0);
        for (int64_t c = 0; c < P; c += WIDTH) {
            // Behind the row stand the next row's factors, or zeros; `before` is still 0 there.
            Vec y = at(u, c), x = unaligned(e + c) * y;
            at(m, c) = x;
            total += x;
            Vec lower = x < y ? x : y;
            if (c + WIDTH == P) {
                at(u, c) = y + padding;
                lower += padding;
            }
            least = lower < least ? lower : least;
        }
        if (s == 0)
            least = spread(INFINITY); // an impossible start
        const double z = sum(total);
        if (!(z > 1 / NEAR && z < NEAR)) {
            if (!(z > 1 / FURTHEST && z < FURTHEST))
                return NAN;
            log_scale += std::log(z);
            for (int64_t j = 0; j < L; j++) {
                e[j] /= z;
                m[j] /= z;
            }
        }
    }
    return smallest(least) >= SMALLEST ? log_scale : NAN;
}

// Reverse mode through `messages`: log(after) at each word receives `source` [n, P], if there are SOURCES, and what
// comes from the message behind it; after · v is the latter, and `v` [P] holds it at the last word walked to. `bar` [n,
// P] is left with all that is received, and `weights` [n, P] with bar / before, so that a transition's gradient is its
// factor times Σ_t after[t - 1] weights[t]. `transposed` is the transpose of the matrix walked with.
template <bool SOURCES>
inline void adjoint(Walk walk, int64_t L, int64_t P, const double *factors, const double *transposed,
                    const double *after, const double *before, const double *source, double *v, double *bar,
                    double *weights) {
    for (int64_t s = walk.n - 1; s >= 0; s--) {
        const int64_t t = walk.row(s) * P;
        const double *e = factors + walk.row(s) * L;
        for (int64_t c = 0; c < P; c += WIDTH) {
            Vec y = at(v, c), x = at(after, t + c) * y, w = unaligned(e + c) * y;
            if (SOURCES) {
                x += at(source, t + c);
                w += at(source, t + c) / at(before, t + c);
            }
            at(bar, t + c) = x;
            at(weights, t + c) = w;
        }
        if (s > 0)
            product(transposed, L + L % 2, P, weights + t, v);
    }
}

// p(y of the last word) [P] from the last forward message; returns the sum it was divided by.
inline double last_shares(const double *message, const Factors &f, double *shares) {
    double z = 0;
    for (int64_t j = 0; j < f.P; j++)
        z += shares[j] = message[j] * f.end[j];
    for (int64_t j = 0; j < f.P; j++)
        shares[j] /= z;
    return z;
}

// The first L of each of n rows, one behind the other. Rows are written in whole vectors while what is written too much
// lies in rows that follow.
template <typename R> inline void write(const double *rows, int64_t n, int64_t L, int64_t P, R *out) {
    typedef R Narrow __attribute__((vector_size(WIDTH * sizeof(R))));
    for (int64_t t = 0; t < n; t++) {
        if (t * L + P <= n * L)
            for (int64_t c = 0; c < P; c += WIDTH) {
                Narrow x = __builtin_convertvector(at(rows, t * P + c), Narrow);
                std::memcpy(out + t * L + c, &x, sizeof x);
            }
        else
            for (int64_t j = 0; j < L; j++)
                out[t * L + j] = R(rows[t * P + j]);
    }
}

// Gradients of log p(tags | x), or log Z, of one post of n words, from its forward messages: `sign` times those of log
// Z, into the first n rows of `own` [T, L] and into `sums` [L, L].
template <typename R>
void post_gradients(int64_t n, const Factors &f, double sign, double z, const double *message, const double *factors,
                    double *room, R *own, double *sums) {
    const int64_t L = f.L, P = f.P;
    double *v = room, *moved = v + P, *bar = moved + f.rows * P, *weights = bar + n * P;
    std::memset(moved, 0, size_t(f.rows * P) * sizeof(double));
    for (int64_t j = 0; j < P; j++)
        v[j] = sign / z * f.end[j];
    adjoint<false>(Walk(n, false), L, P, factors, f.back, message, nullptr, nullptr, v, bar, weights);
    outer(message, weights + P, n - 1, f.rows, P, moved);
    write(bar, n, L, P, own);
    for (int64_t i = 0; i < L * P; i++)
        moved[i] *= f.moves[i];
    write(moved, L, L, P, sums);
}

// log Z [B], where `own` is given with gradients as `partition_abreast` has them; how many posts were left out.
template <typename R>
int64_t partition(int64_t B, int64_t T, const Factors &f, const R *emissions, const int64_t *lengths, const R *start,
                  const R *end, double sign, R *own, double *sums, double *log_z, uint8_t *beyond) {
    const int64_t L = f.L, P = f.P;
    int64_t found = 0;
    if (B >= ABREAST) {
        const std::vector<int64_t> order = by_length(B, lengths);
        for (int64_t g = 0; g < B; g += 2 * WIDTH) {
            const int64_t posts = std::min(2 * WIDTH, B - g);
            const auto run = posts > WIDTH ? partition_abreast<R, 2> : partition_abreast<R, 1>;
            found += run(order.data() + g, posts, f, T, emissions, lengths, start, end, sign, own, sums, log_z, beyond);
        }
        return found;
    }
    double *message = scratch(0, size_t(T * P)), *e = scratch(1, size_t(T * L + WIDTH)), *shares = scratch(2, size_t(2 * P));
    double *room = scratch(3, size_t((2 * T + 1 + f.rows) * P)), *before = shares + P;
    for (int64_t b = 0; b < B; b++) {
        const int64_t n = lengths[b];
        exponentials(emissions + b * T * L, n * L, e);
        const double scaled = messages(Walk(n, false), L, P, e, f.moves, f.start, message, before, 0);
        const double z = last_shares(message + (n - 1) * P, f, shares);
        log_z[b] = scaled + std::log(z);
        beyond[b] = !(f.within && std::isfinite(log_z[b]) && z > SMALLEST);
        found += beyond[b];
        if (own) {
            post_gradients(n, f, sign, z, message, e, room, own + b * T * L, sums + b * L * L);
            std::memset(own + (b * T + n) * L, 0, size_t((T - n) * L) * sizeof(R));
        }
    }
    return found;
}

// log p(tags | x) [B], or log Z without tags. `own` [B, T, L] and `sums` [B, L, L] receive its gradients for each post's
// emissions and transitions, 0 for posts that were left out; both are null where none are wanted.
template <typename R>
int64_t likelihood(int64_t B, int64_t T, int64_t L, const R *emissions, const int64_t *lengths,
                   const int64_t *tags, const R *transitions, const R *start, const R *end, R *own, double *sums,
                   R *result, uint8_t *beyond) {
    for (int64_t b = 0; b < B; b++) {
        if (lengths[b] < 1 || lengths[b] > T)
            return BAD_LENGTH;
        for (int64_t t = 0; tags && t < lengths[b]; t++)
            if (tags[b * T + t] < 0 || tags[b * T + t] >= L)
                return BAD_TAG;
    }
    const Factors f(L, transitions, start, end);
    Buffer log_z(B);
    const int64_t found =
        partition(B, T, f, emissions, lengths, start, end, tags ? -1 : 1, own, sums, log_z.data, beyond);
    for (int64_t b = 0; b < B; b++) {
        if (own && beyond[b]) {
            std::memset(own + b * T * L, 0, size_t(T * L) * sizeof(R));
            std::memset(sums + b * L * L, 0, size_t(L * L) * sizeof(double));
        }
        if (!tags) {
            result[b] = R(log_z.data[b]);
            continue;
        }
        const int64_t n = lengths[b], *path = tags + b * T;
        const R *scores = emissions + b * T * L;
        double gold = double(start[path[0]]) + double(scores[path[0]]) + double(end[path[n - 1]]);
        for (int64_t t = 1; t < n; t++)
            gold += double(scores[t * L + path[t]]) + double(transitions[path[t - 1] * L + path[t]]);
        result[b] = R(gold - log_z.data[b]);
        if (!own || beyond[b])
            continue;
        for (int64_t t = 0; t < n; t++) {
            own[(b * T + t) * L + path[t]] += 1;
            if (t)
                sums[(b * L + path[t - 1]) * L + path[t]] += 1;
        }
    }
    return found;
}

// Gradients of `likelihood` where those of its results are `upstream` [B].
template <typename R>
int64_t likelihood_gradient(int64_t B, int64_t T, int64_t L, const int64_t *lengths, const R *own, const double *sums,
                            const R *upstream, R *to_emissions, R *to_transitions, R *to_start, R *to_end) {
    Buffer room(L * L + 2 * L);
    double *moved = room.data, *first = moved + L * L, *last = first + L;
    for (int64_t b = 0; b < B; b++) {
        const R g = upstream[b], *from = own + b * T * L, *at_end = from + (lengths[b] - 1) * L;
        R *to = to_emissions + b * T * L;
        for (int64_t i = 0; i < T * L; i++)
            to[i] = g * from[i];
        for (int64_t i = 0; i < L * L; i++)
            moved[i] += g * sums[b * L * L + i];
        for (int64_t j = 0; j < L; j++) {
            first[j] += double(g) * from[j];
            last[j] += double(g) * at_end[j];
        }
    }
    for (int64_t i = 0; i < L * L; i++)
        to_transitions[i] = R(moved[i]);
    for (int64_t j = 0; j < L; j++) {
        to_start[j] = R(first[j]);
        to_end[j] = R(last[j]);
    }
    return 0;
}

// Log-marginals [B, T, L]; behind a post's last word its last row is repeated. Kept for the gradients are the messages
// from the left and from the right: `after` and `before` [2, B, T, P], `factors` [2, B, T L + WIDTH]; null as above.
template <typename R>
int64_t marginals(int64_t B, int64_t T, int64_t L, const R *emissions, const int64_t *lengths,
                  const R *transitions, const R *start, const R *end, double *after, double *before, double *factors,
                  R *result, uint8_t *beyond) {
    const Factors f(L, transitions, start, end);
    const int64_t P = f.P, size = T * L + WIDTH;
    int64_t found = 0;
    for (int64_t b = 0; b < B; b++)
        if (lengths[b] < 1 || lengths[b] > T)
            return BAD_LENGTH;
    if (!after && B >= ABREAST) {
        const std::vector<int64_t> order = by_length(B, lengths);
        for (int64_t g = 0; g < B; g += 2 * WIDTH) {
            const int64_t posts = std::min(2 * WIDTH, B - g);
            const auto run = posts > WIDTH ? marginals_abreast<R, 2> : marginals_abreast<R, 1>;
            found += run(order.data() + g, posts, f, T, emissions, lengths, start, end, result, beyond);
        }
        return found;
    }
    const int64_t kept = after ? B : 1;
    if (!after) {
        after = scratch(0, size_t(2 * T * P));
        before = scratch(1, size_t(2 * T * P));
        factors = scratch(2, size_t(2 * size));
    }
    double *rows = scratch(3, size_t(T * P));
    for (int64_t b = 0; b < B; b++) {
        const int64_t n = lengths[b];
        const R *own = emissions + b * T * L;
        R *out = result + b * T * L;
        const int64_t place = b % kept, other = kept + place;
        double *left = after + place * T * P, *right = before + other * T * P;
        double *e = factors + place * size, *again = factors + other * size;
        exponentials(own, n * L, e);
        std::memcpy(again, e, size_t(n * L + WIDTH) * sizeof(double));
        const double forth = messages(Walk(n, false), L, P, e, f.moves, f.start, left, before + place * T * P, P);
        const double back = messages(Walk(n, true), L, P, again, f.back, f.end, after + other * T * P, right, P);
        beyond[b] = !(f.within && std::isfinite(forth) && std::isfinite(back));
        found += beyond[b];
        for (int64_t t = 0; t < n; t++) {
            const double *x = left + t * P, *y = right + t * P;
            double *row = rows + t * P;
            if (t > 0 && t < n - 1) {
                Vec total = {};
                for (int64_t c = 0; c < P; c += WIDTH)
                    total += at(row, c) = at(x, c) * at(y, c);
                const double r = 1 / sum(total);
                for (int64_t c = 0; c < P; c += WIDTH)
                    at(row, c) = logarithm<R>(at(row, c) * r);
            } else { // Impossible starts and ends have factor 0; their log-marginals are read off the scores.
                double top = -INFINITY;
                Vec total = spread(0);
                for (int64_t c = 0; c < P; c += WIDTH) {
                    at(row, c) = spread(0);
                    if (t)
                        at(row, c) += logarithm<R>(at(x, c));
                    if (t < n - 1)
                        at(row, c) += logarithm<R>(at(y, c));
                }
                for (int64_t j = 0; j < L; j++) {
                    if (!t)
                        row[j] += double(start[j]) + double(own[j]);
                    if (t == n - 1)
                        row[j] += double(end[j]);
                    top = larger(top, row[j]);
                }
                for (int64_t j = L; j < P; j++)
                    row[j] = -INFINITY;
                for (int64_t c = 0; c < P; c += WIDTH)
                    total += exponential<R>(at(row, c) - top);
                top += std::log(sum(total));
                for (int64_t c = 0; c < P; c += WIDTH)
                    at(row, c) -= top;
            }
        }
        write(rows, n, L, P, out);
        for (int64_t t = n; t < T; t++)
            std::memcpy(out + t * L, out + (n - 1) * L, size_t(L) * sizeof(R));
    }
    return found;
}

// Gradients of `marginals`; `upstream` [B, T, L] are those of its results.
template <typename R>
int64_t marginals_gradient(int64_t B, int64_t T, int64_t L, const int64_t *lengths, const R *transitions,
                           const R *start, const R *end, const double *after, const double *before,
                           const double *factors, const uint8_t *beyond, const R *upstream, R *to_emissions,
                           R *to_transitions, R *to_start, R *to_end) {
    const Factors f(L, transitions, start, end);
    const int64_t P = f.P, size = T * L + WIDTH;
    Buffer room(4 * T * P + 4 * P + f.rows * P);
    double *source = room.data, *forth = source + T * P, *back = forth + T * P, *weights = back + T * P;
    double *shares = weights + T * P, *v = shares + P, *first = v + P, *last = first + P, *sums = last + P;
    for (int64_t b = 0; b < B; b++) {
        const int64_t n = beyond[b] ? 0 : lengths[b], ends = (n - 1) * P;
        R *own = to_emissions + b * T * L;
        std::memset(own + n * L, 0, size_t((T - n) * L) * sizeof(R));
        if (!n)
            continue;
        const double *left = after + b * T * P, *right = after + (B + b) * T * P;
        double total = 0;
        std::memset(source, 0, size_t(n * P) * sizeof(double));
        for (int64_t t = 0; t < T; t++)
            for (int64_t j = 0; j < L; j++) {
                const double g = upstream[(b * T + t) * L + j];
                source[(t < n ? t : n - 1) * P + j] += g;
                total += g;
            }
        const double z = last_shares(left + ends, f, shares);
        for (int64_t j = 0; j < P; j++)
            v[j] = -total / z * f.end[j];
        adjoint<true>(Walk(n, false), L, P, factors + b * size, f.back, left, before + b * T * P, source, v, forth,
                      weights);
        outer(left, weights + P, n - 1, f.rows, P, sums);
        std::memset(v, 0, size_t(P) * sizeof(double));
        adjoint<true>(Walk(n, true), L, P, factors + (B + b) * size, f.moves, right, before + (B + b) * T * P, source,
                      v, back, weights);
        outer(weights, right + P, n - 1, f.rows, P, sums);
        for (int64_t j = 0; j < L; j++) {
            first[j] += forth[j];
            last[j] += back[ends + j] - total * shares[j];
        }
        // A message from the right reaches the marginals without its own word's emission.
        for (int64_t i = 0; i < n * P; i++)
            forth[i] += back[i] - source[i];
        write(forth, n, L, P, own);
    }
    for (int64_t i = 0; i < L * P; i++)
        sums[i] *= f.moves[i];
    write(sums, L, L, P, to_transitions);
    write(first, 1, L, P, to_start);
    write(last, 1, L, P, to_end);
    return 0;
}

} // namespace

extern "C" const int64_t moreie_crf_width;
const int64_t moreie_crf_width = WIDTH;

// In the order of crf_kernels.py.
#define EXPORT(R, NAME)                                                                                                \
    extern "C" void *const NAME[] = {(void *)likelihood<R>, (void *)likelihood_gradient<R>, (void *)marginals<R>,      \
                                     (void *)marginals_gradient<R>, (void *)viterbi<R>};

extern "C" void *const moreie_crf_float32[5];
extern "C" void *const moreie_crf_float64[5];
EXPORT(float, moreie_crf_float32)
EXPORT(double, moreie_crf_float64)
