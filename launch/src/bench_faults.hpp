#pragma once

namespace holdfast::launch {

/// `holdfast bench faults`: how long members are held up when one of them fails.
int bench_faults_command(int argc, char** argv);

}  // namespace holdfast::launch
