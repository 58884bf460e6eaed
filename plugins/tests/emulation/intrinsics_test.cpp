// The stand-ins for number formats and for single instructions of the GPU, against what the PTX ISA says about them. In
// the matrix tests all elements differ, so that one in a wrong place changes the result.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

#include "device/intrinsics.cuh"
#include "emulation/emulator.h"

namespace edgeformer {
namespace {

void Warp(size_t shared_bytes, std::function<void(int32_t)> const& body) {
    EXPECT_EQ(emulation::Run({{1, 1, 1}, {32, 1, 1}, shared_bytes}, [&] { body(static_cast<int32_t>(threadIdx.x)); }),
              cudaSuccess);
}

// --- number formats ---

TEST(NumberFormats, Half) {
    int wrong = 0;
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
        __half const half{static_cast<uint16_t>(bits)};
        int const exponent = static_cast<int>(bits >> 10 & 0x1fU);
        auto const mantissa = static_cast<float>(bits & 0x3ffU);
        float const magnitude =
            exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024.F + mantissa, exponent - 25);
        float const value = __half2float(half);
        if (exponent == 0x1f) {
            wrong += static_cast<int>(mantissa == 0.F ? !std::isinf(value) : !std::isnan(value));
        } else {
            wrong += static_cast<int>(std::fabs(value) != magnitude);
        }
        wrong += static_cast<int>(std::signbit(value) != (bits >= 0x8000U));
        wrong += std::isnan(value) ? 0 : static_cast<int>(__float2half_rn(value).bits != bits);
    }
    EXPECT_EQ(wrong, 0);
}

// Every number between two neighbours goes to the nearer one, the middle to the even one.
TEST(NumberFormats, HalfRounding) {
    int wrong = 0;
    for (uint32_t bits = 0; bits < 0x7bff; ++bits) {
        float const low = __half2float({static_cast<uint16_t>(bits)});
        float const high = __half2float({static_cast<uint16_t>(bits + 1)});
        float const middle = 0.5F * (low + high);
        wrong += static_cast<int>(__float2half_rn(middle).bits != bits + bits % 2);
        wrong += static_cast<int>(__float2half_rn(std::nextafter(middle, 0.F)).bits != bits);
        wrong += static_cast<int>(__float2half_rn(-std::nextafter(middle, 1e9F)).bits != ((bits + 1) | 0x8000U));
    }
    EXPECT_EQ(wrong, 0);
    EXPECT_EQ(__float2half_rn(65519.996F).bits, 0x7bff);
    EXPECT_EQ(__float2half_rn(65520.F).bits, 0x7c00);
    EXPECT_EQ(__float2half_rn(-INFINITY).bits, 0xfc00);
    EXPECT_EQ(__float2half_rn(1e-30F).bits, 0x0000);
    EXPECT_TRUE(std::isnan(__half2float(__float2half_rn(NAN))));
}

TEST(NumberFormats, Bfloat16) {
    EXPECT_EQ(__bfloat162float({0x3f80}), 1.F);
    EXPECT_EQ(__float2bfloat16_rn(1.F + std::ldexp(1.F, -8)).bits, 0x3f80);        // tie to even
    EXPECT_EQ(__float2bfloat16_rn(1.F + 3.F * std::ldexp(1.F, -8)).bits, 0x3f82);  // tie to even
    EXPECT_EQ(__float2bfloat16_rn(-INFINITY).bits, 0xff80);
    EXPECT_TRUE(std::isnan(__bfloat162float(__float2bfloat16_rn(NAN))));
}

// --- matrices, by the index formulas of the PTX ISA ---

// Where the PTX ISA puts an element of a fragment: `i` counts the elements of a lane, low bits of low registers first.
struct Place {
    int32_t row;
    int32_t column;
};

// "Matrix Fragments for mma.m16n8k16 with floating point type".
namespace m16n8k16 {
Place A(int32_t lane, int32_t i) {
    bool const upper = i < 2 || (4 <= i && i < 6);
    return {lane / 4 + (upper ? 0 : 8), lane % 4 * 2 + i % 2 + (i < 4 ? 0 : 8)};
}
Place B(int32_t lane, int32_t i) { return {lane % 4 * 2 + i % 2 + (i < 2 ? 0 : 8), lane / 4}; }
Place C(int32_t lane, int32_t i) { return {lane / 4 + (i < 2 ? 0 : 8), lane % 4 * 2 + i % 2}; }
}  // namespace m16n8k16

// "Matrix Fragments for mma.m16n8k32", 8-bit elements.
namespace m16n8k32 {
Place A(int32_t lane, int32_t i) {
    bool const upper = i < 4 || (8 <= i && i < 12);
    return {lane / 4 + (upper ? 0 : 8), lane % 4 * 4 + i % 4 + (i < 8 ? 0 : 16)};
}
Place B(int32_t lane, int32_t i) { return {lane % 4 * 4 + i % 4 + (i < 4 ? 0 : 16), lane / 4}; }
}  // namespace m16n8k32

// A matrix whose elements all differ, in sign, too.
std::vector<int32_t> Distinct(int32_t rows, int32_t columns, int32_t multiplier) {
    std::vector<int32_t> elements(static_cast<size_t>(rows) * columns);
    for (size_t i = 0; i < elements.size(); ++i) {
        // A permutation of 0 .. size - 1, as the multiplier is odd and the size a power of two, around 0.
        elements[i] =
            static_cast<int32_t>(i * multiplier % elements.size()) - static_cast<int32_t>(elements.size() / 2);
    }
    return elements;
}

void Put(uint32_t (&registers)[4], int32_t i, uint32_t bits, int32_t width) {
    registers[i * width / 32] |= bits << i * width % 32;
}

// a * b + c with all integers, so the result is exact whatever the order of the additions.
template <int32_t kDepth, int32_t kWidth, class Accumulator, class Encode, class PlaceA, class PlaceB, class Multiply>
void CheckMma(Encode encode, PlaceA place_a, PlaceB place_b, Multiply multiply, int32_t divisor) {
    auto scaled = [&](std::vector<int32_t> elements) {
        for (int32_t& element : elements) {
            element /= divisor;
        }
        return elements;
    };
    std::vector<int32_t> const a = scaled(Distinct(16, kDepth, 37));
    std::vector<int32_t> const b = scaled(Distinct(kDepth, 8, 11));
    std::vector<int32_t> const c = Distinct(16, 8, 5);
    Accumulator result[16][8] = {};
    Warp(0, [&](int32_t lane) {
        uint32_t a_registers[4] = {};
        uint32_t b_registers[4] = {};
        Accumulator d[4];
        for (int32_t i = 0; i < kDepth / 2; ++i) {
            Place const place = place_a(lane, i);
            Put(a_registers, i, encode(a[place.row * kDepth + place.column]), kWidth);
        }
        for (int32_t i = 0; i < kDepth / 4; ++i) {
            Place const place = place_b(lane, i);
            Put(b_registers, i, encode(b[place.row * 8 + place.column]), kWidth);
        }
        for (int32_t i = 0; i < 4; ++i) {
            Place const place = m16n8k16::C(lane, i);
            d[i] = static_cast<Accumulator>(c[place.row * 8 + place.column]);
        }
        multiply(d, a_registers, b_registers[0], b_registers[1]);
        for (int32_t i = 0; i < 4; ++i) {
            Place const place = m16n8k16::C(lane, i);
            result[place.row][place.column] = d[i];
        }
    });
    for (int32_t row = 0; row < 16; ++row) {
        for (int32_t column = 0; column < 8; ++column) {
            int32_t sum = c[row * 8 + column];
            for (int32_t k = 0; k < kDepth; ++k) {
                sum += a[row * kDepth + k] * b[k * 8 + column];
            }
            EXPECT_EQ(result[row][column], static_cast<Accumulator>(sum)) << "row " << row << " column " << column;
        }
    }
}

TEST(Intrinsics, MmaF16) {
    CheckMma<16, 16, float>([](int32_t x) { return uint32_t{__float2half_rn(static_cast<float>(x)).bits}; },
                            m16n8k16::A, m16n8k16::B, MmaF16, 1);
}

TEST(Intrinsics, MmaBf16) {
    CheckMma<16, 16, float>([](int32_t x) { return uint32_t{__float2bfloat16_rn(static_cast<float>(x)).bits}; },
                            m16n8k16::A, m16n8k16::B, MmaBf16, 1);
}

TEST(Intrinsics, MmaS8) {
    // 512 and 256 elements do not all fit into 8 bits: quarters do, and the sums still tell rows and columns apart.
    CheckMma<32, 8, int32_t>([](int32_t x) { return static_cast<uint32_t>(x) & 0xffU; }, m16n8k32::A, m16n8k32::B,
                             MmaS8, 4);
}

TEST(Intrinsics, LoadMatricesTransposed) {
    std::vector<uint32_t> received(32 * 4);
    Warp(4 * 8 * 16, [&](int32_t lane) {
        // Lane 8m + r brings the address of row r of matrix m; rows stand in shared memory in another order.
        auto* row = SharedMemory() + (lane * 5 + 3) % 32 * 16;
        for (uint16_t column = 0; column < 8; ++column) {
            auto const element = static_cast<uint16_t>(lane * 8 + column);
            std::memcpy(row + column * 2, &element, sizeof(element));
        }
        __syncwarp();
        uint32_t registers[4];
        LoadMatricesTransposed(registers, row);
        std::copy(registers, registers + 4, received.begin() + lane * 4);
    });
    for (uint32_t lane = 0; lane < 32; ++lane) {
        for (uint32_t matrix = 0; matrix < 4; ++matrix) {
            // Without .trans, a lane gets the elements 2 * (lane % 4) and the next of row lane / 4.
            uint32_t const low = (matrix * 8 + lane % 4 * 2) * 8 + lane / 4;
            EXPECT_EQ(received[lane * 4 + matrix], low | (low + 8) << 16);
        }
    }
}

TEST(IntrinsicsDeathTest, MisalignedVectorsAbort) {
    EXPECT_DEATH(Warp(64, [](int32_t) { LoadVector(SharedMemory() + 8); }), "not a multiple of 16");
    EXPECT_DEATH(Warp(64, [](int32_t) { StoreVector(SharedMemory() + 4, {}); }), "not a multiple of 16");
    EXPECT_DEATH(Warp(640,
                      [](int32_t lane) {
                          uint32_t registers[4];
                          LoadMatricesTransposed(registers, SharedMemory() + lane * 8);
                      }),
                 "not a multiple of 16");
}

// --- arithmetic ---

TEST(Intrinsics, BytePermute) {
    EXPECT_EQ(BytePermute(0x33221100U, 0x77665544U, 0x7410U), 0x77441100U);
    EXPECT_EQ(BytePermute(0x33221100U, 0x77665544U, 0x0123U), 0x00112233U);
    EXPECT_EQ(BytePermute(0x33221100U, 0x77665544U, 0x4545U), 0x44554455U);
}

TEST(Intrinsics, PackedNumbers) {
    EXPECT_EQ(PackHalf2(1.F, -2.F), 0xc0003c00U);
    EXPECT_EQ(PackBf162(1.F, -2.F), 0xc0003f80U);
    EXPECT_EQ(SubtractHalf2(PackHalf2(1152.F + 127.F, 1.5F), PackHalf2(1152.F, 2.F)), PackHalf2(127.F, -0.5F));
}

TEST(Intrinsics, Exp2) {
    EXPECT_EQ(Exp2(10.F), 1024.F);
    EXPECT_EQ(Exp2(-INFINITY), 0.F);
    EXPECT_EQ(Exp2(-126.F), std::ldexp(1.F, -126));
    EXPECT_EQ(Exp2(-127.F), 0.F);  // .ftz
    EXPECT_TRUE(std::isnan(Exp2(NAN)));
}

}  // namespace
}  // namespace edgeformer
