#!/bin/sh
# Fuzz the codec's C kernel under ASan and UBSan: fuzz/codec.sh SECONDS [libFuzzer options]
# Exit 0: nothing found, or skipped for a stated reason. Anything else: a finding; the input lies in fuzz/corpus/codec-findings.
set -eu
seconds=${1:?usage: fuzz/codec.sh SECONDS}
shift
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || python=python3

skip() {
    echo "fuzz/codec.sh: skipped: $1"
    exit 0
}

find_clang() {
    for clang in clang clang-19 clang-18 clang-17 clang-16 clang-15 clang-14; do
        command -v "$clang" && return
    done
}

clang=$(find_clang || true)
if [ -z "$clang" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    (apt-get update && apt-get install -y clang "libclang-rt-14-dev") >/dev/null 2>&1 || true
    clang=$(find_clang || true)
fi
[ -n "$clang" ] || skip "no clang"

build=build/fuzz
corpus=fuzz/corpus/codec
mkdir -p "$build" "$corpus" fuzz/corpus/codec-findings
echo 'int LLVMFuzzerTestOneInput(const unsigned char *d, unsigned long s) { return d && s ? 0 : 0; }' >"$build/probe.c"
"$clang" -fsanitize=fuzzer,address,undefined "$build/probe.c" -o "$build/probe" 2>/dev/null || skip "$clang has no libFuzzer runtime (libclang-rt)"

eval "$("$python" - <<'PYTHON'
import shlex, sys, sysconfig
get = sysconfig.get_config_var
print(f"include={shlex.quote(sysconfig.get_path('include'))} libdir={shlex.quote(get('LIBDIR') or '')}")
print(f"lib=python{get('LDVERSION')} home={shlex.quote(sys.base_prefix)} libs={shlex.quote(f'''{get('LIBS') or ''} {get('SYSLIBS') or ''}''')}")
PYTHON
)"
[ -f "$include/Python.h" ] || skip "no Python headers in $include"

"$python" - "$build/headers" <<'PYTHON'
import struct, sys
from raptor_s3.codec.oti import DegreeTable
from raptor_s3.codec.header import plan_header
shapes = [(k, DegreeTable.RFC6330) for k in (1, 2, 8, 10, 11, 26, 40, 101, 300)]
shapes += [(k, DegreeTable.RFC5053) for k in (1, 16, 64)]
with open(sys.argv[1], "wb") as file:
    for k, table in shapes:
        file.write(struct.pack("=I", k) + plan_header(k, table))
PYTHON

# shellcheck disable=SC2086
"$clang" -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -DRQ_SMALL -I"$include" -Iraptor_s3/codec \
    fuzz/codec.c raptor_s3/codec/_*.c -o "$build/codec" -L"$libdir" -Wl,-rpath,"$libdir" -l"$lib" $libs -lm ||
    skip "no libpython to link with"

export FUZZ_PYTHON_HOME="$home" FUZZ_CODEC_HEADERS="$build/headers" ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1
exec "$build/codec" "$corpus" -max_total_time="$seconds" -max_len=4096 -timeout=30 -rss_limit_mb=4096 -print_final_stats=1 \
    -artifact_prefix=fuzz/corpus/codec-findings/ "$@"
