// Vectors of numbers, as wide as the processor's: what all kernels share.

#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>

namespace {

#ifdef __AVX512DQ__
#define BYTES 64
#else
#define BYTES 32
#endif
typedef double Vec __attribute__((vector_size(BYTES)));
typedef int64_t Bits __attribute__((vector_size(BYTES)));
typedef uint64_t Positive __attribute__((vector_size(BYTES)));
constexpr int64_t WIDTH = BYTES / sizeof(double);

struct Buffer {
    double *data;
    explicit Buffer(int64_t size)
        : data(static_cast<double *>(std::aligned_alloc(64, (size_t(size) * sizeof(double) + 63) / 64 * 64))) {
        if (!data)
            std::abort();
        std::memset(data, 0, size_t(size) * sizeof(double));
    }
    ~Buffer() { std::free(data); }
    Buffer(const Buffer &) = delete;
    Buffer &operator=(const Buffer &) = delete;
};

inline Vec spread(double x) { return x - Vec{}; } // x + 0 would be computed: it is not x where that is -0
inline Vec &at(double *row, int64_t i) { return *reinterpret_cast<Vec *>(row + i); }
inline const Vec &at(const double *row, int64_t i) { return *reinterpret_cast<const Vec *>(row + i); }
inline Vec unaligned(const double *x) {
    Vec v;
    std::memcpy(&v, x, sizeof v);
    return v;
}
inline double larger(double a, double b) { return a > b ? a : b; }
#if BYTES == 64
inline double sum(Vec x) { return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7])); }
inline double smallest(Vec x) {
    return -larger(larger(larger(-x[0], -x[1]), larger(-x[2], -x[3])),
                   larger(larger(-x[4], -x[5]), larger(-x[6], -x[7])));
}
#else
inline double sum(Vec x) { return (x[0] + x[2]) + (x[1] + x[3]); }
inline double smallest(Vec x) { return -larger(larger(-x[0], -x[1]), larger(-x[2], -x[3])); }
#endif

inline bool all(Bits x) {
#if BYTES == 64
    typedef long long Signs __attribute__((vector_size(64)));
    return __builtin_ia32_cvtq2mask512((Signs)x) == 255;
#elif defined(__AVX__)
    return __builtin_ia32_movmskpd256((Vec)x) == 15;
#else
    return (x[0] & x[1] & x[2] & x[3]) != 0;
#endif
}

template <typename R> struct Lanes;
template <> struct Lanes<float> {
    typedef float Type __attribute__((vector_size(BYTES)));
    typedef int32_t Whole __attribute__((vector_size(BYTES)));
};
template <> struct Lanes<double> {
    typedef double Type __attribute__((vector_size(BYTES)));
    typedef int64_t Whole __attribute__((vector_size(BYTES)));
};

// Entries of a and then b: the k-th is the one at Of::place(k), counted through both.
template <typename Of, typename V, size_t... K> inline V permuted(V a, V b, std::index_sequence<K...>) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(a, b, Of::place(K)...);
#else
    typedef typename Lanes<std::decay_t<decltype(a[0])>>::Whole Whole;
    return __builtin_shuffle(a, b, Whole{Of::place(K)...});
#endif
}
template <typename Of, typename V> inline V permuted(V a, V b) {
    return permuted<Of>(a, b, std::make_index_sequence<sizeof(V) / sizeof(a[0])>());
}

#if BYTES == 64

// Where blocks of S entries change places with those beside the diagonal.
template <int W, int S> struct Low {
    static constexpr int place(int k) { return k & S ? W + k - S : k; }
};
template <int W, int S> struct High {
    static constexpr int place(int k) { return k & S ? W + k : k + S; }
};

// Rows to columns, as many as a row has entries: blocks of 1, 2, 4, ... entries.
template <typename V, int W, int S = 1> inline void turned(V *x) {
#pragma GCC unroll 16
    for (int i = 0; i < W; i++)
        if (!(i & S)) {
            const V a = x[i], b = x[i + S];
            x[i] = permuted<Low<W, S>>(a, b);
            x[i + S] = permuted<High<W, S>>(a, b);
        }
    if constexpr (2 * S < W)
        turned<V, W, 2 * S>(x);
}

inline void turn(Lanes<float>::Type *x) { turned<Lanes<float>::Type, 16>(x); }
inline void turn(Lanes<double>::Type *x) { turned<Lanes<double>::Type, 8>(x); }

#else

// Entries of a and then b, by their places in both, as one instruction of AVX; I is the vector of places.
#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLED(I, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLED(I, a, b, ...) __builtin_shuffle(a, b, I{__VA_ARGS__})
#endif

// Rows to columns: eight floats of eight rows.
inline void turn(Lanes<float>::Type *x) {
    typedef Lanes<float>::Whole I;
    Lanes<float>::Type a[8], b[8];
    for (int i = 0; i < 8; i += 2) {
        a[i] = SHUFFLED(I, x[i], x[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        a[i + 1] = SHUFFLED(I, x[i], x[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i = 0; i < 8; i += 4)
        for (int h = 0; h < 2; h++) {
            b[i + 2 * h] = SHUFFLED(I, a[i + h], a[i + 2 + h], 0, 1, 8, 9, 4, 5, 12, 13);
            b[i + 2 * h + 1] = SHUFFLED(I, a[i + h], a[i + 2 + h], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    for (int i = 0; i < 4; i++) {
        x[i] = SHUFFLED(I, b[i], b[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        x[i + 4] = SHUFFLED(I, b[i], b[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

// The same of four doubles.
inline void turn(Lanes<double>::Type *x) {
    typedef Lanes<double>::Whole I;
    const Vec a = SHUFFLED(I, x[0], x[1], 0, 4, 2, 6), b = SHUFFLED(I, x[0], x[1], 1, 5, 3, 7);
    const Vec c = SHUFFLED(I, x[2], x[3], 0, 4, 2, 6), d = SHUFFLED(I, x[2], x[3], 1, 5, 3, 7);
    x[0] = SHUFFLED(I, a, c, 0, 1, 4, 5);
    x[1] = SHUFFLED(I, b, d, 0, 1, 4, 5);
    x[2] = SHUFFLED(I, a, c, 2, 3, 6, 7);
    x[3] = SHUFFLED(I, b, d, 2, 3, 6, 7);
}

#endif

// Room that stays with its thread: finding memory anew would take longer than some calls.
inline double *scratch(int which, size_t doubles) {
    struct Kept {
        double *data[4] = {};
        size_t size[4] = {};
        ~Kept() {
            for (double *d : data)
                std::free(d);
        }
    };
    static thread_local Kept kept;
    if (kept.size[which] < doubles) {
        std::free(kept.data[which]);
        kept.size[which] = (doubles + 7) / 8 * 8;
        kept.data[which] = static_cast<double *>(std::aligned_alloc(64, kept.size[which] * sizeof(double)));
        if (!kept.data[which])
            std::abort();
    }
    return kept.data[which];
}

} // namespace
