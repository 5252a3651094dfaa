// Kernels for any CPU: one lane at a time.
#include "aggregation/fold_kernels_impl.h"

namespace umbel::aggregation {
namespace {

struct One {
  using U = uint64_t;
  using D = double;
  using M = bool;
  static constexpr size_t kLanes = 1;
  static constexpr int kWeightBits = 24;  // with 32 bits of x and kGroupMax items: 64
  static constexpr int kHighUnit = 32;
  static constexpr uint64_t kBias = kMagicBits;

  static U Load(const uint64_t* p) { return *p; }
  static void Store(uint64_t* p, U a) { std::memcpy(p, &a, sizeof a); }
  static U Set(uint64_t a) { return a; }
  static D SetD(double a) { return a; }
  static D LoadF4(const char* p) {
    float a;
    std::memcpy(&a, p, sizeof a);
    return double{a};
  }
  static D LoadF8(const char* p) {
    double a;
    std::memcpy(&a, p, sizeof a);
    return a;
  }
  static U Bits(D a) {
    U bits;
    std::memcpy(&bits, &a, sizeof bits);
    return bits;
  }
  static D FromBits(U a) {
    D value;
    std::memcpy(&value, &a, sizeof value);
    return value;
  }
  static D FromU(U a) { return static_cast<double>(a); }

  static U Add(U a, U b) { return a + b; }
  static U Sub(U a, U b) { return a - b; }
  static U And(U a, U b) { return a & b; }
  static U Or(U a, U b) { return a | b; }
  static U Xor(U a, U b) { return a ^ b; }
  template <int kBy>
  static U Shl(U a) {
    return a << kBy;
  }
  template <int kBy>
  static U Shr(U a) {
    return a >> kBy;
  }
  static U ShlBy(U a, int by) { return a << by; }
  static U ShrBy(U a, int by) { return a >> by; }
  static U Sign(U a) { return 0 - (a >> 63); }
  static U OrAll(U a) { return a; }

  static D AddD(D a, D b) { return a + b; }
  static D SubD(D a, D b) { return a - b; }
  static D MulD(D a, D b) { return a * b; }
  static D DivD(D a, D b) { return a / b; }
  static D MulAdd(D a, D b, D c) { return a * b + c; }
  static D Remainder(D a, D q, D b) { return __builtin_fma(-q, b, a); }

  static M Less(U a, U b) { return a < b; }
  static M EqualU(U a, U b) { return a == b; }
  static M Equal(D a, D b) { return a == b; }
  static M Positive(D a) { return a > 0; }
  static M Negative(D a) { return a < 0; }
  static M FitsD(U a) { return (a & 0x7ff) == 0 || a < (uint64_t{1} << 53); }
  static M AndM(M a, M b) { return a && b; }
  static M AndNotM(M a, M b) { return !a && b; }
  static M OrM(M a, M b) { return a || b; }
  static bool Any(M a) { return a; }
  static size_t Flags(M a, uint8_t* flags) {
    *flags = a ? 1 : 0;
    return *flags;
  }
  static D Keep(M a, D x) { return a ? x : 0.0; }
  static U Plus(U a, M b) { return a + (b ? 1 : 0); }
  static U Minus(U a, M b) { return a - (b ? 1 : 0); }

  static void Deposit(U x, U weight, U& low, U& high) {
    low += (x & 0xffffffff) * weight;
    high += (x >> 32) * weight;
  }
};

}  // namespace

const Kernels& GenericKernels() {
  static constexpr Kernels kTable = Loops<One>::Table("generic");
  return kTable;
}

}  // namespace umbel::aggregation
