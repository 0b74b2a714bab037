// Products of states with weights in 8 bits: what encoders/int8_product.py defines.
//
// A row of states is brought into unsigned bytes by its own largest number, 128 standing for nothing, so that a row's
// answer does not depend on the rows beside it. Weights lie in the order that the instructions for dot products of four
// bytes read them in: of 2 W outputs the first four bytes each, then the next four. Where the processor can multiply
// tiles (AMX), the same order is that of its tiles.

#include "singles.h"
#include "tiles.h"

#include <cmath>

#ifdef __AVX2__
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace {

struct Weights {
    int64_t outputs, inputs, width; // width: of a row of bytes, `inputs` rounded up to whole tiles
    const int8_t *bytes;
    const int32_t *offsets; // -128 times the sum of an output's weights
    const float *steps, *bias;
};

constexpr int64_t TOGETHER = 64; // rows that are in bytes at once: they stay in the caches

template <typename R, bool GELU>
inline void finish(Whole first, Whole second, float step, const Weights &of, int64_t pair, R *out) {
    const float *steps = of.steps + pair * 2 * W, *bias = of.bias + pair * 2 * W;
    Row a = __builtin_convertvector(first, Row) * (part(steps, 0) * step) + part(bias, 0);
    Row b = __builtin_convertvector(second, Row) * (part(steps, 1) * step) + part(bias, 1);
    if (GELU) {
        a = gelu(a);
        b = gelu(b);
    }
    narrow(a, b, out);
}

inline float largest(Whole bits) {
    const int32_t most = folded<int32_t>(bits, [](int32_t a, int32_t b) { return a < b ? b : a; });
    float found;
    std::memcpy(&found, &most, sizeof found);
    return found;
}

// A row, each number first multiplied by its own of `by`, in bytes; what a step of a byte is worth. Of 4 W numbers the
// bytes lie in the order of what comes first in each `part`, then second. Without sign, numbers are in the order of
// their bits, and those that are none the largest: of a row with one of them nothing is a number.
template <typename R> float quantise(const R *x, int64_t count, const float *by, uint8_t *bytes) {
    Whole top[4] = {};
    for (int64_t c = 0; c < count; c += 4 * W)
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) {
            const int64_t place = c + k / 2 * 2 * W;
            const Whole size = (Whole)(part(x + place, k % 2) * part(by + place, k % 2)) & 0x7fffffff;
            top[k] = top[k] < size ? size : top[k];
        }
    top[0] = top[0] < top[2] ? top[2] : top[0];
    top[1] = top[1] < top[3] ? top[3] : top[1];
    const float most = largest(top[0] < top[1] ? top[1] : top[0]);
    // Rounded by a number whose last bit is worth 1: the bytes are its last eight bits.
    const Row steps = everywhere(most != 0 ? 127 / most : 0), nothing = everywhere(0x1.8p23f + 128);
    for (int64_t c = 0; c < count; c += 4 * W) {
        Whole all{};
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) {
            const int64_t place = c + k / 2 * 2 * W;
            const Row v = part(x + place, k % 2) * part(by + place, k % 2) * steps + nothing;
            all |= ((Whole)v & 0xff) << 8 * k;
        }
        std::memcpy(bytes + c, &all, sizeof all);
    }
    return most / 127;
}

#if BYTES == 64
#define BY(instruction) _mm512_##instruction
typedef __m512i Packed;
#elif defined(__AVX2__)
#define BY(instruction) _mm256_##instruction
typedef __m256i Packed;
#endif

#define KIND plain
#define WITH
#define ROWS (BYTES == 64 ? 8 : 4)
#ifdef __AVX2__
#define DOTS(t, x, a, y, b)                                                                                            \
    ((t) + (Whole)BY(madd_epi16)(BY(add_epi16)(BY(maddubs_epi16)((Packed)(x), (Packed)(a)),                            \
                                               BY(maddubs_epi16)((Packed)(y), (Packed)(b))),                           \
                                 BY(set1_epi16)(1)))
#else
inline Whole dot(Whole sums, Whole x, Whole w) {
    uint8_t a[4 * W];
    int8_t b[4 * W];
    std::memcpy(a, &x, sizeof a);
    std::memcpy(b, &w, sizeof b);
    for (int64_t k = 0; k < W; k++)
        sums[k] += a[4 * k] * b[4 * k] + a[4 * k + 1] * b[4 * k + 1] + a[4 * k + 2] * b[4 * k + 2] +
                   a[4 * k + 3] * b[4 * k + 3];
    return sums;
}
#define DOT(t, x, a) dot(t, x, a)
#endif
#include "int8_rows.h"

#ifdef __AVX2__
#define KIND vnni
#if BYTES == 64
#define WITH __attribute__((target("avx512vnni")))
#define ROWS 12
#define DOT(t, x, a) (Whole) _mm512_dpbusd_epi32((Packed)(t), (Packed)(x), (Packed)(a))
#else
#define WITH __attribute__((target("avxvnni")))
#define ROWS 6
#define DOT(t, x, a) (Whole) _mm256_dpbusd_avx_epi32((Packed)(t), (Packed)(x), (Packed)(a))
#endif
#include "int8_rows.h"
#endif

#ifdef TILES

namespace tiles {

// Rows are read in whole tiles: there is room behind the last.
template <typename R, bool GELU>
__attribute__((target("amx-tile,amx-int8"))) void multiply(int64_t N, const uint8_t *rows, const float *steps,
                                                           const Weights &of, R *out) {
    const Shape shape;
    alignas(64) int32_t sums[4][16][16];
    in_memory();
    _tile_loadconfig(&shape);
    for (int64_t pair = 0; pair < of.outputs / 32; pair++) {
        const int8_t *weights = of.bytes + pair * 32 * of.width;
        const int32_t *offsets = of.offsets + pair * 32;
        for (int64_t n = 0; n < N; n += 32) {
            const bool both = n + 16 < N;
            const uint8_t *own = rows + n * of.width;
            _tile_loadd(0, offsets, 0);
            _tile_loadd(1, offsets + 16, 0);
            if (both) {
                _tile_loadd(2, offsets, 0);
                _tile_loadd(3, offsets + 16, 0);
            }
            for (int64_t k = 0; k < of.width; k += 64) {
                _tile_loadd(4, own + k, of.width);
                _tile_loadd(6, weights + k * 32, 128);
                _tile_loadd(7, weights + k * 32 + 64, 128);
                _tile_dpbusd(0, 4, 6);
                _tile_dpbusd(1, 4, 7);
                if (both) {
                    _tile_loadd(5, own + 16 * of.width + k, of.width);
                    _tile_dpbusd(2, 5, 6);
                    _tile_dpbusd(3, 5, 7);
                }
            }
            _tile_stored(0, sums[0], 64);
            _tile_stored(1, sums[1], 64);
            if (both) {
                _tile_stored(2, sums[2], 64);
                _tile_stored(3, sums[3], 64);
            }
            const int64_t count = N - n < 32 ? N - n : 32;
            for (int64_t r = 0; r < count; r++) {
                const auto *tile = sums + r / 16 * 2;
                finish<R, GELU>(whole(tile[0][r % 16]), whole(tile[1][r % 16]), steps[n + r], of, pair,
                                out + (n + r) * of.outputs + pair * 32);
            }
        }
    }
    _tile_release();
}

} // namespace tiles

#endif

enum Method : int64_t { PLAIN, VNNI, IN_TILES };

// The fastest that the processor can do.
Method asked() {
#ifdef __AVX2__
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return PLAIN;
#ifdef TILES
    if (has_tiles())
        return IN_TILES;
#endif
#if BYTES == 64
    if (c >> 11 & 1)
        return VNNI;
#else
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1))
        return VNNI;
#endif
#endif
    return PLAIN;
}

int64_t best() {
    static const Method found = asked();
    return found;
}

template <typename R, bool GELU>
void product(int64_t method, int64_t N, const R *x, const float *by, const Weights &of, R *out) {
    method = method < best() ? method : best();
    auto multiply = plain::multiply<R, GELU>;
#ifdef __AVX2__
    if (method == VNNI)
        multiply = vnni::multiply<R, GELU>;
#endif
#ifdef TILES
    if (method == IN_TILES)
        multiply = tiles::multiply<R, GELU>;
#endif
    uint8_t *rows = reinterpret_cast<uint8_t *>(scratch(0, size_t(TOGETHER * of.width) / sizeof(double)));
    float steps[TOGETHER];
    for (int64_t first = 0; first < N; first += TOGETHER) {
        const int64_t count = N - first < TOGETHER ? N - first : TOGETHER;
        for (int64_t n = 0; n < count; n++)
            steps[n] = quantise(x + (first + n) * of.inputs, of.inputs, by, rows + n * of.width);
        multiply(count, rows, steps, of, out + first * of.outputs);
    }
}

} // namespace

extern "C" const int64_t moreie_int8_unit;
const int64_t moreie_int8_unit = 4 * W;

// Whether, without instructions for dot products, four products are summed in 16 bits: of bytes k, k + 1, k + 4 and
// k + 5 of eight, k being 0 and 2. 255 times the sizes of their weights must not be more than 16 bits hold.
extern "C" const int64_t moreie_int8_short_sums;
#ifdef __AVX2__
const int64_t moreie_int8_short_sums = 1;
#else
const int64_t moreie_int8_short_sums = 0;
#endif

extern "C" int64_t moreie_int8_best() { return best(); }

extern "C" void moreie_int8_float32(int64_t method, int64_t N, int64_t outputs, int64_t inputs, int64_t width,
                                    const float *x, const float *by, const int8_t *bytes, const int32_t *offsets,
                                    const float *steps, const float *bias, int64_t then_gelu, float *out) {
    (then_gelu ? product<float, true> : product<float, false>)(method, N, x, by,
                                                               {outputs, inputs, width, bytes, offsets, steps, bias}, out);
}

extern "C" void moreie_int8_bfloat16(int64_t method, int64_t N, int64_t outputs, int64_t inputs, int64_t width,
                                     const uint16_t *x, const float *by, const int8_t *bytes, const int32_t *offsets,
                                     const float *steps, const float *bias, int64_t then_gelu, uint16_t *out) {
    (then_gelu ? product<uint16_t, true> : product<uint16_t, false>)(
        method, N, x, by, {outputs, inputs, width, bytes, offsets, steps, bias}, out);
}
