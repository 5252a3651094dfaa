// The commands of umbel-dataserver. Each is called once, by main, with its own name as argv[0].
#pragma once

namespace umbel::dataserver {

int ServeCommand(int argc, char** argv);
int PutCommand(int argc, char** argv);
int ListCommand(int argc, char** argv);
int DropCommand(int argc, char** argv);
int MockCommand(int argc, char** argv);
int AssignCommand(int argc, char** argv);
int ReleaseCommand(int argc, char** argv);

}  // namespace umbel::dataserver
