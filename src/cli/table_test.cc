#include "cli/table.h"

#include <gtest/gtest.h>

namespace umbel::cli {
namespace {

TEST(Table, IsDrawnAsServicesAreShown) {
  EXPECT_EQ(
      DrawTable({"Service Name", "Instances"},
                {{{"aggr1"}, {" 0 RUNNING"}}, {{"flearner1"}, {" 0 RUNNING", "", " 1 RUNNING"}}}),
      "╭──────────────┬────────────╮\n"
      "│ Service Name │ Instances  │\n"
      "├──────────────┼────────────┤\n"
      "│              │            │\n"
      "│ aggr1        │  0 RUNNING │\n"
      "│              │            │\n"
      "├──────────────┼────────────┤\n"
      "│              │            │\n"
      "│              │  0 RUNNING │\n"
      "│ flearner1    │            │\n"
      "│              │  1 RUNNING │\n"
      "│              │            │\n"
      "╰──────────────┴────────────╯\n");
}

TEST(Table, CountsWhatIsSeen) {
  EXPECT_EQ(ColumnsOf("Grüße…"), 6u);
  EXPECT_EQ(DrawTable({"ä"}, {{{"b"}}}), "╭───╮\n│ ä │\n├───┤\n│   │\n│ b │\n│   │\n╰───╯\n");
}

}  // namespace
}  // namespace umbel::cli
