// Products of states with weights in half precision (bfloat16): what encoders/bfloat16_product.py defines.
//
// Weights lie in the order that both tiles (AMX) and the instructions for dot products of two numbers (AVX512-BF16) read
// them in: of 32 outputs, the even ones first, two numbers each, then the next two.

#include "pairs.h"
#include "tiles.h"

namespace {

#ifdef PAIRS

namespace pairs {

constexpr int ROWS = 12;         // at once: their sums fill the registers
constexpr int64_t TOGETHER = 96; // rows that weights are read for: they stay in the caches

// COUNT rows times the weights of 32 outputs.
template <bool GELU, int COUNT>
PAIRS void block(const uint16_t *x, int64_t inputs, const uint16_t *weights, const float *bias, uint16_t *out,
                 int64_t outputs) {
    Row sums[2 * COUNT];
#pragma GCC unroll 32
    for (int r = 0; r < COUNT; r++) {
        sums[2 * r] = part(bias, 0);
        sums[2 * r + 1] = part(bias, 1);
    }
    for (int64_t k = 0; k < inputs; k += 2, weights += 4 * W) {
        const Whole even = whole(weights), odd = whole(weights + 2 * W);
#pragma GCC unroll 32
        for (int r = 0; r < COUNT; r++) {
            const Whole own = four(x + r * inputs + k);
            sums[2 * r] = dots(sums[2 * r], own, even);
            sums[2 * r + 1] = dots(sums[2 * r + 1], own, odd);
        }
    }
#pragma GCC unroll 32
    for (int r = 0; r < COUNT; r++) {
        Row a = sums[2 * r], b = sums[2 * r + 1];
        narrow(GELU ? gelu(a) : a, GELU ? gelu(b) : b, out + r * outputs);
    }
}

template <bool GELU, size_t... COUNT>
void multiply(int64_t N, int64_t outputs, int64_t inputs, const uint16_t *x, const uint16_t *weights, const float *bias,
              uint16_t *out, std::index_sequence<COUNT...>) {
    constexpr decltype(&block<GELU, 1>) of_so_many[] = {block<GELU, int(COUNT) + 1>...};
    for (int64_t first = 0; first < N; first += TOGETHER) {
        const int64_t end = N - first < TOGETHER ? N : first + TOGETHER;
        for (int64_t place = 0; place < outputs; place += 32)
            for (int64_t n = first; n < end; n += ROWS)
                of_so_many[(end - n < ROWS ? end - n : ROWS) - 1](x + n * inputs, inputs, weights + place * inputs,
                                                                  bias + place, out + n * outputs + place, outputs);
    }
}

void product(int64_t N, int64_t outputs, int64_t inputs, const uint16_t *x, const uint16_t *weights, const float *bias,
             bool then_gelu, uint16_t *out) {
    const auto counts = std::make_index_sequence<ROWS>();
    if (then_gelu)
        multiply<true>(N, outputs, inputs, x, weights, bias, out, counts);
    else
        multiply<false>(N, outputs, inputs, x, weights, bias, out, counts);
}

} // namespace pairs

#endif

#ifdef TILES

namespace tiles {

// Sums of 32 rows and 32 outputs, four tiles of them, on their way to where they belong.
template <bool GELU> struct Sums {
    alignas(64) float tiles[4][16][16];
    const float *bias = nullptr;
    uint16_t *out = nullptr;
    int64_t outputs, count = 0, done = 0;

    // Some rows more, up to `upto`.
    inline void finish(int64_t upto) {
        upto = upto < count ? upto : count;
        for (; done < upto; done++) {
            Row even = part(tiles[done / 16 * 2][done % 16], 0) + part(bias, 0);
            Row odd = part(tiles[done / 16 * 2 + 1][done % 16], 0) + part(bias, 1);
            if (GELU) {
                even = gelu(even);
                odd = gelu(odd);
            }
            narrow(even, odd, out + done * outputs);
        }
    }
};

// `rest`: the rows behind the last 32, with nothing behind them up to 32. Tiles are multiplied while vectors finish the
// block before.
template <bool GELU>
__attribute__((target("amx-tile,amx-bf16"))) void multiply(int64_t N, int64_t outputs, int64_t inputs,
                                                           const uint16_t *x, const uint16_t *rest,
                                                           const uint16_t *weights, const float *bias, uint16_t *out) {
    const Shape shape;
    Sums<GELU> both[2];
    both[0].outputs = both[1].outputs = outputs;
    Sums<GELU> *before = both, *now = both + 1;
    const int64_t rows_a_step = (32 * 32 + inputs - 1) / inputs;
    in_memory();
    _tile_loadconfig(&shape);
    for (int64_t n = 0; n < N; n += 32) {
        const bool more = n + 16 < N;
        const uint16_t *own = n + 32 <= N ? x + n * inputs : rest;
        for (int64_t block = 0; block < outputs; block += 32) {
            const uint16_t *step = weights + block * inputs;
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
            int64_t upto = rows_a_step;
            for (int64_t k = 0; k < inputs; k += 32, step += 1024, upto += rows_a_step) {
                _tile_loadd(4, own + k, inputs * 2);
                _tile_loadd(6, step, 128);
                _tile_loadd(7, step + 32, 128);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
                if (more) {
                    _tile_loadd(5, own + 16 * inputs + k, inputs * 2);
                    _tile_dpbf16ps(2, 5, 6);
                    _tile_dpbf16ps(3, 5, 7);
                }
                for (int64_t c = 0; c < 1024; c += 32) // two steps ahead; a place behind the weights is not read
                    _mm_prefetch(reinterpret_cast<const char *>(step + 2048 + c), _MM_HINT_T0);
                before->finish(upto);
            }
            before->finish(32);
            _tile_stored(0, now->tiles[0], 64);
            _tile_stored(1, now->tiles[1], 64);
            if (more) {
                _tile_stored(2, now->tiles[2], 64);
                _tile_stored(3, now->tiles[3], 64);
            }
            in_memory();
            now->bias = bias + block;
            now->out = out + n * outputs + block;
            now->count = N - n < 32 ? N - n : 32;
            now->done = 0;
            std::swap(before, now);
        }
    }
    before->finish(32);
    _tile_release();
}

void product(int64_t N, int64_t outputs, int64_t inputs, const uint16_t *x, const uint16_t *weights, const float *bias,
             bool then_gelu, uint16_t *out) {
    const int64_t behind = N % 32 * inputs;
    uint16_t *rest = reinterpret_cast<uint16_t *>(scratch(0, size_t(32 * inputs) / 4));
    std::memcpy(rest, x + N * inputs - behind, size_t(behind) * 2);
    std::memset(rest + behind, 0, size_t(32 * inputs - behind) * 2);
    (then_gelu ? multiply<true> : multiply<false>)(N, outputs, inputs, x, rest, weights, bias, out);
}

} // namespace tiles

#endif

enum Method : int64_t { NONE, IN_PAIRS, IN_TILES };

// The fastest that the processor can do.
Method asked() {
#ifdef TILES
    if (has_tiles())
        return IN_TILES;
#endif
#ifdef PAIRS
    if (has_pairs())
        return IN_PAIRS;
#endif
    return NONE;
}

} // namespace

// Without a method there are no products. A processor with tiles can do them in pairs, too.
extern "C" int64_t moreie_product_best() {
    static const Method found = asked();
    return found;
}

// Outputs and inputs are multiples of 32.
extern "C" void moreie_product(int64_t method, int64_t N, int64_t outputs, int64_t inputs, const uint16_t *x,
                               const uint16_t *weights, const float *bias, int64_t then_gelu, uint16_t *out) {
#ifdef TILES
    if (method == IN_TILES)
        return tiles::product(N, outputs, inputs, x, weights, bias, then_gelu, out);
#endif
#ifdef PAIRS
    if (method == IN_PAIRS)
        return pairs::product(N, outputs, inputs, x, weights, bias, then_gelu, out);
#endif
}
