# The two commands of the README: `make demo` and `make test`. Both build their own virtual environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
C_SOURCES := $(wildcard raptor_s3/codec/_*.[ch] raptor_s3/wireguard/_*.[ch] raptor_s3/wire/_*.[ch])

.PHONY: demo test check format soak fuzz compat bench clean

demo: $(STAMP)
	@$(BIN)/python -m demo

test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow"

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/cfn-lint template.yaml

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(STAMP): pyproject.toml constraints.txt setup.py $(C_SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit("raptor-s3 needs CPython 3.11 or newer, this is " + sys.version.split()[0] + ": make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	@echo "· installing raptor-s3 and its tools into $(VENV) (about two minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[check]'
	@touch $@

# Long by nature; CI runs both for a moment.
PUTS ?= 100000
SECONDS ?= 600

soak: $(STAMP)
	$(BIN)/python tests/soak.py --puts $(PUTS)

fuzz: $(STAMP)
	fuzz/codec.sh $(SECONDS)

# Other people's versions: the oldest and newest botocore, AWS CLI 1.45 and v2, s3transfer's own tests.
compat: $(STAMP)
	$(BIN)/python tests/compat/run.py
	$(BIN)/python tests/compat/awscli.py

# The ratios of docs/benchmarks.md and docs/wan.md; the link emulator needs root.
bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.codec
	$(BIN)/python -m benchmarks.wireguard
	$(BIN)/python -m benchmarks.engine
	$(BIN)/python -m benchmarks.gateway
	$(BIN)/python -m benchmarks.dropin
	$(BIN)/python -m benchmarks.wan

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
