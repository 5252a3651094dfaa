#include "doors/accounts.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "base/testing.h"

namespace umbel::doors {
namespace {

class AccountsTest : public ::testing::Test {
 protected:
  void SetUp() override { Open(); }
  void Open() {
    accounts_.reset();
    auto opened = Accounts::Open(folder_.path(), clock_, rng_);
    ASSERT_TRUE(opened.ok()) << opened.error().message;
    accounts_ = *std::move(opened);
  }
  std::string AdminPassword() {
    std::string text = ReadFile(folder_.path() + "/admin.password", 100).value();
    text.pop_back();
    return text;
  }

  umbel::testing::TempDir folder_;
  FakeClock clock_;
  SeededRng rng_{1};
  std::unique_ptr<Accounts> accounts_;
};

TEST_F(AccountsTest, TheFirstStartMakesAnAdmin) {
  const auto tokens = accounts_->LogIn("Admin", AdminPassword());
  ASSERT_TRUE(tokens.ok()) << tokens.error().message;
  const auto who = accounts_->Who(tokens->token);
  ASSERT_TRUE(who.ok());
  EXPECT_EQ(who->name, "Admin");
  EXPECT_TRUE(who->admin);
  EXPECT_TRUE(who->MayUse("alice"));
  for (const char* file : {"/accounts.json", "/admin.password"}) {
    const auto mode = std::filesystem::status(folder_.path() + file).permissions();
    EXPECT_EQ(mode & std::filesystem::perms::all,
              std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  }
}

TEST_F(AccountsTest, WrongWordsAreRefusedInOneWay) {
  const auto name = accounts_->LogIn("nobody", AdminPassword());
  const auto password = accounts_->LogIn("Admin", "Admin");
  ASSERT_FALSE(name.ok());
  ASSERT_FALSE(password.ok());
  EXPECT_EQ(name.error().message, password.error().message);
  EXPECT_EQ(password.error().code, Code::kUnauthenticated);
}

TEST_F(AccountsTest, TokensSurviveARestartAndEnd) {
  const auto tokens = accounts_->LogIn("Admin", AdminPassword()).value();
  Open();
  EXPECT_TRUE(accounts_->Who(tokens.token).ok());
  clock_.Advance(Accounts::kTokenLife);
  EXPECT_FALSE(accounts_->Who(tokens.token).ok());
  const auto renewed = accounts_->Renew(tokens.refresh_token);
  ASSERT_TRUE(renewed.ok());
  EXPECT_TRUE(accounts_->Who(renewed->token).ok());
  EXPECT_FALSE(accounts_->Renew(renewed->token).ok()) << "an access token is no refresh token";
  EXPECT_FALSE(accounts_->Who(renewed->refresh_token).ok());
  clock_.Advance(Accounts::kRefreshLife);
  EXPECT_FALSE(accounts_->Renew(tokens.refresh_token).ok());
}

TEST_F(AccountsTest, ATokenThatWasTouchedIsNone) {
  const std::string token = accounts_->Trust("Admin").value().token;
  for (size_t i = 0; i < token.size(); ++i) {
    std::string other = token;
    other[i] = other[i] == 'A' ? 'B' : 'A';
    EXPECT_FALSE(accounts_->Who(other).ok()) << i;
  }
  for (const char* text : {"", ".", "..", "a.b", "a.b.c", "e30.e30.", "e30.bnVsbA.x"})
    EXPECT_FALSE(accounts_->Who(text).ok()) << text;
}

TEST_F(AccountsTest, AnotherPasswordEndsTokens) {
  ASSERT_TRUE(accounts_->Put({"alice", false}, "correct horse").ok());
  const std::string token = accounts_->LogIn("alice", "correct horse").value().token;
  EXPECT_FALSE(accounts_->Who(token)->MayUse("bob"));
  EXPECT_TRUE(accounts_->Who(token)->MayUse("alice"));
  ASSERT_TRUE(accounts_->Put({"alice", false}, "another horse").ok());
  EXPECT_FALSE(accounts_->Who(token).ok());
  EXPECT_FALSE(accounts_->LogIn("alice", "correct horse").ok());
  ASSERT_TRUE(accounts_->Remove("alice").ok());
  EXPECT_FALSE(accounts_->LogIn("alice", "another horse").ok());
}

TEST_F(AccountsTest, TheLastAdminStays) {
  EXPECT_EQ(accounts_->Remove("Admin").error().code, Code::kFailedPrecondition);
  EXPECT_EQ(accounts_->Put({"Admin", false}, "long enough").error().code,
            Code::kFailedPrecondition);
  ASSERT_TRUE(accounts_->Put({"root", true}, "long enough").ok());
  EXPECT_TRUE(accounts_->Remove("Admin").ok());
}

TEST_F(AccountsTest, NamesAndPasswordsAreChecked) {
  EXPECT_FALSE(accounts_->Put({"", false}, "long enough").ok());
  EXPECT_FALSE(accounts_->Put({"a/b", false}, "long enough").ok());
  EXPECT_FALSE(accounts_->Put({std::string(65, 'a'), false}, "long enough").ok());
  EXPECT_FALSE(accounts_->Put({"alice", false}, "short").ok());
}

TEST_F(AccountsTest, AFileOfSomethingElseIsAnError) {
  ASSERT_TRUE(WriteFileAtomic(folder_.path() + "/accounts.json", "{}").ok());
  EXPECT_EQ(Accounts::Open(folder_.path(), clock_, rng_).error().code, Code::kDataLoss);
}

TEST(Network, HoldsTheAddressesOfItsPrefix) {
  const auto has = [](const char* network, const char* address) {
    const auto parsed = Network::Parse(network);
    EXPECT_TRUE(parsed.ok()) << network;
    return parsed->Has(address);
  };
  EXPECT_TRUE(has("127.0.0.0/8", "127.1.2.3"));
  EXPECT_FALSE(has("127.0.0.0/8", "128.0.0.1"));
  EXPECT_TRUE(has("10.0.0.128/25", "10.0.0.200"));
  EXPECT_FALSE(has("10.0.0.128/25", "10.0.0.127"));
  EXPECT_TRUE(has("192.168.1.1", "192.168.1.1"));
  EXPECT_FALSE(has("192.168.1.1", "192.168.1.2"));
  EXPECT_TRUE(has("0.0.0.0/0", "8.8.8.8"));
  EXPECT_FALSE(has("0.0.0.0/0", "::1"));
  EXPECT_TRUE(has("127.0.0.0/8", "::ffff:127.0.0.1"));
  EXPECT_TRUE(has("2001:db8::/33", "2001:db8:7fff::1"));
  EXPECT_FALSE(has("2001:db8::/33", "2001:db8:8000::1"));
  for (const char* text :
       {"", "/8", "127.0.0.1/33", "127.0.0.1/", "127.0.0.1/x", "host", "::1/129"})
    EXPECT_FALSE(Network::Parse(text).ok()) << text;
}

TEST_F(AccountsTest, AddsOnlyWhatIsNotThere) {
  ASSERT_TRUE(accounts_->Add({"alice", false}, "password-1").ok());
  const Status again = accounts_->Add({"alice", true}, "password-2");
  ASSERT_FALSE(again.ok());
  EXPECT_EQ(again.error().code, Code::kAlreadyExists);
  EXPECT_TRUE(accounts_->LogIn("alice", "password-1").ok());
  ASSERT_TRUE(accounts_->Get("alice"));
  EXPECT_FALSE(accounts_->Get("alice")->admin);
  EXPECT_FALSE(accounts_->Get("bob"));
}

TEST_F(AccountsTest, TheFirstPasswordIsForgottenWithIt) {
  const std::string file = folder_.path() + "/admin.password";
  ASSERT_TRUE(accounts_->Put({"alice", true}, "password-1").ok());
  EXPECT_TRUE(std::filesystem::exists(file));
  ASSERT_TRUE(accounts_->Put({"Admin", true}, "password-2").ok());
  EXPECT_FALSE(std::filesystem::exists(file));
  Open();
  EXPECT_TRUE(accounts_->LogIn("Admin", "password-2").ok());
  EXPECT_FALSE(std::filesystem::exists(file)) << "a restart makes no other";
}

}  // namespace
}  // namespace umbel::doors
