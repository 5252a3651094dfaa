#include "manager/customer_services.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "manager/world_testing.h"

namespace umbel::manager {
namespace {

using testing::World;

constexpr uint16_t kPort = 37027;  // not 7027: real ones may run on this machine

class CustomerServicesTest : public ::testing::Test {
 protected:
  CustomerServicesTest() {
    world_.options().dataserver = "/bin/umbel-dataserver";
    std::filesystem::create_directories(world_.options().state + "/mocks");
  }

  Service Track(const std::string& customer) {
    Service service;
    EXPECT_TRUE(world_.store()
                    .Write([&](Connection& db) -> Status {
                      UMBEL_ASSIGN(service,
                                   EnsureTrackingService(db, ids_, customer,
                                                         world_.clock().wall.Now(), kPort));
                      return {};
                    })
                    .ok());
    return service;
  }

  Service Mock() {
    Service service;
    service.id = ids_.Next();
    EXPECT_TRUE(WriteFileAtomic(MockFile(world_.options(), service),
                                R"({"customerID": "alice", "mock_data_configuration":
                                  {"dataset_name": "digits", "data_tag": "digits"}})")
                    .ok());
    EXPECT_TRUE(world_.store()
                    .Write([&](Connection& db) -> Status {
                      UMBEL_ASSIGN(service, AddCustomerService(db, ids_,
                                                               {Kind::kMock, service.id, "alice",
                                                                world_.clock().wall.Now(), 0}));
                      return {};
                    })
                    .ok());
    return service;
  }

  std::vector<std::string> Names(Kind kind) {
    std::vector<std::string> names;
    const auto services =
        world_.store().Read([](Connection& db) { return ListServices(db, true); });
    for (const Service& each : *services)
      if (each.kind == kind) names.push_back(each.name);
    return names;
  }
  long OnGround(const std::string& name) {
    const auto names = world_.OnGround();
    return std::count(names.begin(), names.end(), name);
  }

  SeededRng rng_{3};
  World world_;
  ObjectIds ids_{world_.clock().wall, rng_};
};

TEST_F(CustomerServicesTest, ATrackingServerIsMadeOnce) {
  const Service first = Track("alice");
  EXPECT_EQ(first.name, "tracking" + ShortHash("alice"));
  EXPECT_GE(first.port, kPort);
  EXPECT_EQ(Track("alice").id, first.id);
  const Service other = Track("bob");
  EXPECT_NE(other.port, first.port);
  EXPECT_NE(other.app_id, first.app_id);
  world_.Settle();
  EXPECT_EQ(OnGround("tracking"), 2) << "they run though there is no project";
  EXPECT_EQ(Track("alice").port, first.port);
}

TEST_F(CustomerServicesTest, AProjectTakesTheServerThatIsThere) {
  const Service server = Track("Admin");
  world_.Submit();
  world_.Settle();
  EXPECT_EQ(OnGround("tracking"), 1);
  EXPECT_EQ(Names(Kind::kTracking), std::vector<std::string>{server.name});
}

TEST_F(CustomerServicesTest, AProviderWithoutItsDocumentIsForgotten) {
  const Service kept = Mock();
  const Service gone = Mock();
  EXPECT_NE(kept.name, gone.name);
  world_.Settle();
  EXPECT_EQ(world_.ground().List().size(), 4u) << "two data servers, both providers";
  std::filesystem::remove(MockFile(world_.options(), gone));
  world_.Settle();
  EXPECT_EQ(Names(Kind::kMock), std::vector<std::string>{kept.name});
  EXPECT_EQ(world_.ground().List().size(), 3u) << "two data servers and a provider";
}

TEST_F(CustomerServicesTest, AProviderThatNeverRanIsForgotten) {
  world_.options().dataserver.clear();
  const Service gone = Mock();
  world_.Settle();
  EXPECT_EQ(Names(Kind::kMock).size(), 1u);
  std::filesystem::remove(MockFile(world_.options(), gone));
  world_.Settle();
  EXPECT_TRUE(Names(Kind::kMock).empty());
}

TEST_F(CustomerServicesTest, KilledAtEachStepAProviderIsForgotten) {
  for (uint64_t step = 1; step <= 6; ++step) {
    for (const bool after : {false, true}) {
      const Service gone = Mock();
      world_.Settle();
      std::filesystem::remove(MockFile(world_.options(), gone));
      world_.life().DieAt(step, after);
      world_.Settle();
      world_.life().LiveOn();
      EXPECT_TRUE(Names(Kind::kMock).empty()) << step << after;
      EXPECT_EQ(world_.ground().List().size(), 2u) << "data servers alone";
    }
  }
}

}  // namespace
}  // namespace umbel::manager
