#include "manager/git.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "base/file.h"
#include "base/testing.h"
#include "manager/child.h"

namespace umbel::manager {
namespace {

namespace fs = std::filesystem;

class GitTest : public ::testing::Test {
 protected:
  void SetUp() override {
    repository_ = dir_.path() + "/repo";
    root_ = dir_.path() + "/root";
    Git({"init", "--quiet", "--initial-branch=main", repository_});
    Commit("model_manager.py", "one");
    first_ = Head();
    Git({"-C", repository_, "tag", "v1"});
    Commit("model_manager.py", "two");
    sla_.repository = repository_;
  }
  static std::string Git(std::vector<std::string> arguments) {
    ChildRequest request;
    request.arguments = {"git", "-c", "user.name=a", "-c", "user.email=a@b"};
    request.arguments.insert(request.arguments.end(), arguments.begin(), arguments.end());
    request.environment = ChildEnvironment();
    const auto end = RunChild(request, {});
    UMBEL_CHECK(end.ok() && end->status == 0);
    return end->output.substr(0, end->output.find('\n'));
  }
  void Commit(const std::string& name, const std::string& text) {
    UMBEL_CHECK(WriteFileAtomic(repository_ + "/" + name, text).ok());
    Git({"-C", repository_, "add", "."});
    Git({"-C", repository_, "commit", "--quiet", "-m", "x"});
  }
  std::string Head() { return Git({"-C", repository_, "rev-parse", "HEAD"}); }
  Result<Checkout> Fetch(const std::string& commit = "") {
    return FetchRepository(root_, sla_, commit, "", {});
  }

  testing::TempDir dir_;
  std::string repository_, root_, first_;
  Sla sla_;
};

TEST_F(GitTest, TakesTheNewestCommitAndFollowsIt) {
  auto got = Fetch();
  ASSERT_TRUE(got.ok()) << got.error().message;
  EXPECT_EQ(got->commit, Head());
  EXPECT_EQ(*ReadFile(got->folder + "/model_manager.py"), "two");
  Commit("model_manager.py", "three");
  got = Fetch();
  ASSERT_TRUE(got.ok()) << got.error().message;
  EXPECT_EQ(*ReadFile(got->folder + "/model_manager.py"), "three");
}

TEST_F(GitTest, TakesATagABranchOrACommit) {
  for (const std::string& ref : {std::string("v1"), first_, first_.substr(0, 10)}) {
    sla_.ref = ref;
    const auto got = Fetch();
    ASSERT_TRUE(got.ok()) << ref << got.error().message;
    EXPECT_EQ(got->commit, first_);
  }
  sla_.ref = "main";
  EXPECT_EQ(Fetch()->commit, Head());
}

TEST_F(GitTest, AKnownCommitNeedsNoRemote) {
  ASSERT_TRUE(Fetch().ok());
  fs::rename(repository_, repository_ + ".away");
  const auto got = Fetch(first_);
  ASSERT_TRUE(got.ok()) << got.error().message;
  EXPECT_EQ(*ReadFile(got->folder + "/model_manager.py"), "one");
}

TEST_F(GitTest, SaysWhatIsWrong) {
  sla_.ref = "nosuch";
  auto got = Fetch();
  ASSERT_FALSE(got.ok());
  EXPECT_EQ(got.error().code, Code::kNotFound);
  EXPECT_NE(got.error().message.find("has no branch, tag or commit 'nosuch'"), std::string::npos);
  sla_ = {};
  sla_.repository = dir_.path() + "/nowhere";
  got = Fetch();
  ASSERT_FALSE(got.ok());
  EXPECT_EQ(got.error().code, Code::kNotFound);
  EXPECT_NE(got.error().message.find("nowhere"), std::string::npos) << got.error().message;
}

TEST_F(GitTest, ADeadHostMayComeBack) {
  sla_.repository = "http://127.0.0.1:1/x";
  const auto got = Fetch();
  ASSERT_FALSE(got.ok());
  EXPECT_EQ(got.error().code, Code::kUnavailable) << got.error().message;
}

TEST_F(GitTest, LinksThatLeaveTheRepositoryAreText) {
  fs::create_symlink("/etc/passwd", repository_ + "/link");
  Commit("other", "x");
  const auto got = Fetch();
  ASSERT_TRUE(got.ok()) << got.error().message;
  EXPECT_FALSE(fs::is_symlink(got->folder + "/link"));
}

TEST(Child, IsEndedWhenItsTimeIsUp) {
  ChildRequest request;
  request.arguments = {"sh", "-c", "echo begun; sleep 1000"};
  request.environment = ChildEnvironment();
  request.limit = std::chrono::seconds(1);
  const auto end = RunChild(request, {});
  ASSERT_FALSE(end.ok());
  EXPECT_EQ(end.error().code, Code::kDeadlineExceeded);
}

TEST(Child, IsEndedWhenItIsCancelled) {
  std::stop_source source;
  source.request_stop();
  ChildRequest request;
  request.arguments = {"sleep", "1000"};
  request.environment = ChildEnvironment();
  const auto end = RunChild(request, source.get_token());
  ASSERT_FALSE(end.ok());
  EXPECT_EQ(end.error().code, Code::kCancelled);
}

TEST(Child, TellsItsOutputAndStatus) {
  ChildRequest request;
  request.arguments = {"sh", "-c", "echo out; echo err >&2; exit 3"};
  request.environment = ChildEnvironment();
  const auto end = RunChild(request, {});
  ASSERT_TRUE(end.ok());
  EXPECT_EQ(end->status, 3);
  EXPECT_EQ(end->output, "out\n");
  EXPECT_EQ(end->errors, "err\n");
  request.arguments = {"no-such-program-here"};
  EXPECT_EQ(RunChild(request, {}).error().code, Code::kNotFound);
}

}  // namespace
}  // namespace umbel::manager
