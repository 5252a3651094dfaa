#include "flower/spool.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/testing.h"
#include "tensor/sha256.h"

namespace umbel::flower {
namespace {

using umbel::testing::TempDir;

ObjectId Name(std::string_view name) { return tensor::Sha256Of(name); }

std::shared_ptr<Spool> New(const std::string& path = "") {
  auto spool = Spool::Create(path);
  UMBEL_CHECK(spool.ok());
  return *std::move(spool);
}

TEST(Spool, ATemporaryFileHasNoNameAndIsNotInMemory) {
  const auto spool = New();
  struct stat info = {};
  ASSERT_EQ(::fstat(spool->fd(), &info), 0);
  EXPECT_EQ(info.st_nlink, 0U);
  EXPECT_TRUE(S_ISREG(info.st_mode));
}

TEST(Spool, ReadsWhatWasAppendedAndKnowsItsEnd) {
  const auto spool = New();
  const auto first = spool->Append(std::string_view("abc"));
  const auto second = spool->Append(std::string_view("defg"));
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(*second, (FileRange{3, 4}));
  EXPECT_EQ(spool->Read(*second).value(), "defg");
  EXPECT_EQ(spool->Read(FileRange{2, 2}).value(), "cd");
  EXPECT_EQ(spool->size(), 7U);
}

TEST(Spool, GoesOnBehindWhatAnotherProcessWrote) {
  const auto spool = New();
  ASSERT_EQ(::pwrite(spool->fd(), "theirs", 6, 10), 6);
  spool->SkipTo(16);
  EXPECT_EQ(spool->Append(std::string_view("ours")).value(), (FileRange{16, 4}));
  spool->SkipTo(3);
  EXPECT_EQ(spool->size(), 20U);
  EXPECT_EQ(spool->Read(FileRange{10, 10}).value(), "theirsours");
}

TEST(Spool, SmallObjectsAreAllHeadAndLargeOnesInTheFile) {
  const auto spool = New();
  const std::string small(4095, 's');
  const std::string large(4096, 'l');
  ASSERT_TRUE(spool->Put(Name("s"), small).ok());
  ASSERT_TRUE(spool->Put(Name("l"), large).ok());
  EXPECT_EQ(*spool->Find(Name("s")), (StoredObject{small, {}}));
  EXPECT_EQ(*spool->Find(Name("l")), (StoredObject{"", {0, 4096}}));
  EXPECT_EQ(spool->Read(Name("s"), 4095).value(), small);
  EXPECT_EQ(spool->Read(Name("l"), 4096).value(), large);
  spool->Add(Name("both"), {"head ", {1, 3}});
  EXPECT_EQ(spool->Read(Name("both"), 8).value(), "head lll");
  EXPECT_EQ(spool->objects().size(), 3U);
}

TEST(Spool, TheFirstOfANameStays) {
  const auto spool = New();
  ASSERT_TRUE(spool->Put(Name("a"), "first").ok());
  const StoredObject* before = spool->Find(Name("a"));
  ASSERT_TRUE(spool->Put(Name("a"), "second").ok());
  EXPECT_EQ(spool->Find(Name("a")), before);
  EXPECT_EQ(before->head, "first");
}

TEST(Spool, WhatIsNotThereIsAnError) {
  const auto spool = New();
  EXPECT_EQ(spool->Find(Name("a")), nullptr);
  EXPECT_EQ(spool->Read(Name("a"), 10).error().code, Code::kNotFound);
  ASSERT_TRUE(spool->Put(Name("a"), "12345").ok());
  EXPECT_EQ(spool->Read(Name("a"), 4).error().code, Code::kResourceExhausted);
  ASSERT_TRUE(spool->Append(std::string_view("abc")).ok());
  for (const FileRange& range : {FileRange{0, 4}, FileRange{4, 0}, FileRange{3, 1},
                                 FileRange{1, UINT64_MAX}, FileRange{UINT64_MAX, 2}})
    EXPECT_EQ(spool->Read(range).error().code, Code::kDataLoss) << range.offset;
  EXPECT_EQ(spool->Read(FileRange{3, 0}).value(), "");
  spool->Add(Name("lost"), {"head", {0, 1 << 20}});
  EXPECT_EQ(spool->Read(Name("lost"), 1 << 21).error().code, Code::kDataLoss);
}

TEST(Spool, IsFoundAgainByItsIndex) {
  const TempDir dir;
  const std::string path = dir.path() + "/one";
  std::string index;
  {
    const auto spool = New(path);
    ASSERT_TRUE(spool->Put(Name("a"), "small").ok());
    ASSERT_TRUE(spool->Put(Name("b"), std::string(5000, 'b')).ok());
    index = spool->Index();
    ASSERT_TRUE(spool->Append(std::string_view("never journalled")).ok());
  }
  const auto again = Spool::Open(path, index);
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ((*again)->Read(Name("a"), 100).value(), "small");
  EXPECT_EQ((*again)->Read(Name("b"), 5000).value(), std::string(5000, 'b'));
  EXPECT_EQ((*again)->size(), 5000U);
  EXPECT_EQ((*again)->Index(), index);
  EXPECT_EQ(Spool::Create(path).error().code, Code::kAlreadyExists);
  EXPECT_EQ(Spool::Open(path + "x", index).error().code, Code::kNotFound);

  ASSERT_EQ(::truncate(path.c_str(), 4999), 0);
  EXPECT_EQ(Spool::Open(path, index).error().code, Code::kDataLoss);
}

RC_GTEST_PROP(SpoolProperty, AMutatedOrCutIndexIsRefused, ()) {
  const TempDir dir;
  const std::string path = dir.path() + "/one";
  const auto spool = New(path);
  for (int i = *rc::gen::inRange(0, 4); i > 0; --i)
    RC_ASSERT(spool->Put(Name(std::to_string(i)), *rc::gen::arbitrary<std::string>()).ok());
  std::string index = spool->Index();
  const size_t at = *rc::gen::inRange<size_t>(0, index.size());
  if (*rc::gen::arbitrary<bool>()) {
    index[at] = static_cast<char>(index[at] ^ *rc::gen::inRange(1, 256));
  } else {
    index.resize(at);
  }
  const auto again = Spool::Open(path, index);
  RC_ASSERT(!again.ok());
  RC_ASSERT(again.error().code == Code::kDataLoss);
}

TEST(Spool, AFullDiskIsSaid) {
  const auto spool = New();
  // /dev/full behaves like a disk without room.
  const Fd device(::open("/dev/full", O_RDWR | O_CLOEXEC));
  ASSERT_TRUE(device.valid());
  ASSERT_GE(::dup2(device.get(), spool->fd()), 0);
  const auto refused = spool->Append(std::string_view("abc"));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Code::kResourceExhausted);
  EXPECT_EQ(spool->size(), 0U);
}

}  // namespace
}  // namespace umbel::flower
