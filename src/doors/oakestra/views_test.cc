#include "doors/oakestra/views.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace umbel::doors::oakestra {
namespace {

manager::ServiceView Learners() {
  manager::ServiceView view;
  view.service.id = "679cbbafaf4c1923eb5df1b7";
  view.service.kind = manager::Kind::kLearner;
  view.service.name = "flearner11e3c5ca7c4c";
  view.service.app_id = "679cbbaeaf4c1923eb5df1b3";
  view.service.customer = "Admin";
  view.app_name = "projc911185f81c4";
  for (uint32_t number : {0u, 1u}) {
    manager::Instance instance;
    instance.number = number;
    instance.name = fmt::format("{}.{}", view.service.name, number);
    instance.spec = R"({"arguments": ["/opt/umbel/bin/umbel", "supernode", "--insecure"]})";
    instance.state = orchestrator::InstanceState::kRunning;
    instance.node = "node-1";
    instance.address = "127.0.0.1";
    view.instances.push_back(instance);
  }
  return view;
}

TEST(OakestraViews, AServiceHasWhatOakReads) {
  const nlohmann::json service = Service(Learners(), {{"node-1", "cluster-0"}}, {"one", "two"});
  for (const char* key : {"microservice_name", "microserviceID", "app_name", "applicationID",
                          "image", "status", "virtualization"})
    EXPECT_TRUE(service[key].is_string()) << key;
  EXPECT_EQ(service["status"], "RUNNING");
  EXPECT_EQ(service["cmd"], nlohmann::json({"umbel", "supernode", "--insecure"}));
  ASSERT_EQ(service["instance_list"].size(), 2u);
  const nlohmann::json& second = service["instance_list"][1];
  EXPECT_EQ(second["instance_number"], 1);
  EXPECT_EQ(second["status"], "RUNNING");
  EXPECT_EQ(second["logs"], "two");
  EXPECT_EQ(second["cluster_id"], ClusterId("cluster-0"));
  for (const char* key : {"publicip", "cluster_id", "logs"})
    EXPECT_TRUE(second[key].is_string()) << key;
}

TEST(OakestraViews, WhatWaitsOrIsGoneHasAStatusOfOakestras) {
  manager::ServiceView view = Learners();
  view.instances[0].state = view.instances[1].state = orchestrator::InstanceState::kWaiting;
  view.instances[0].node.clear();
  nlohmann::json service = Service(view, {}, {});
  EXPECT_EQ(service["status"], "NO_WORKER_CAPACITY");
  EXPECT_EQ(service["instance_list"][0]["publicip"], "-");
  view.service.gone = true;
  service = Service(view, {}, {});
  EXPECT_EQ(service["instance_list"][1]["status"], "UNDEPLOYED");
  view.instances.clear();
  view.service.gone = false;
  EXPECT_EQ(Service(view, {}, {})["status"], "REQUESTED");
}

TEST(OakestraViews, AnApplicationNamesItsServices) {
  const manager::ServiceView learners = Learners();
  manager::ServiceView aggregator = Learners();
  aggregator.service.id = "679cbbaeaf4c1923eb5df1b6";
  const nlohmann::json app = Application({&aggregator, &learners});
  EXPECT_EQ(app["application_name"], "projc911185f81c4");
  EXPECT_EQ(app["application_namespace"], "proj");
  EXPECT_EQ(app["applicationID"], "679cbbaeaf4c1923eb5df1b3");
  EXPECT_EQ(app["microservices"], nlohmann::json({aggregator.service.id, learners.service.id}));
}

TEST(OakestraViews, NodesAreSummedUp) {
  orchestrator::Node one;
  one.name = "node-1";
  one.cluster = "local";
  one.addons = {"FLOps-learner"};
  one.capacity = {uint64_t{2} << 30, 2000, 0};
  one.reserved = {0, 500, 0};
  orchestrator::Node two = one;
  two.addons = {"image-builder"};
  two.up = false;
  const nlohmann::json cluster = Cluster({&one, &two});
  EXPECT_EQ(cluster["active_nodes"], 1);
  EXPECT_EQ(cluster["memory_in_mb"], 4096);
  EXPECT_EQ(cluster["total_cpu_cores"], 4);
  EXPECT_EQ(cluster["aggregated_cpu_percent"], 25.0);
  EXPECT_EQ(cluster["supported_addons"], nlohmann::json({"FLOps-learner", "image-builder"}));
  EXPECT_EQ(cluster["_id"].get<std::string>().size(), 24u);
}

TEST(OakestraViews, LogsAreNoMarkup) {
  EXPECT_EQ(Escape("[INFO] at [/usr/bin] of [x]"), "[INFO] at \\[/usr/bin] of \\[x]");
  EXPECT_EQ(Escape("\x1b[31mred\x1b[0m"), "red");
  EXPECT_EQ(Escape("C:\\[x]"), "C:\\\\\\[x]");
  EXPECT_EQ(Escape("ends in \\"), "ends in \\ ");
  EXPECT_EQ(Escape("a\rb\x07\xff\n"), "ab?\n");
  EXPECT_EQ(Escape("\x1b["), "");
}

}  // namespace
}  // namespace umbel::doors::oakestra
