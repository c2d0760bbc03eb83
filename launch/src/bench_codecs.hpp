#pragma once

namespace holdfast::launch {

/// `holdfast bench codecs`; argv holds the options after argv[0]. The result is the exit status.
int bench_codecs(int argc, char** argv);

}  // namespace holdfast::launch
