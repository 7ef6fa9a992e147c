PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: test lint venv quickstart bench bench-bf16 gpu fuzz security wheel clean

venv: .venv/.installed

.venv/.installed: pyproject.toml requirements-dev.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements-dev.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

quickstart: venv
	$(BIN)/segfaith run quickstart

bench: venv
	$(BIN)/python benchmarks/speed.py $(BENCH)

bench-bf16: venv
	$(BIN)/python benchmarks/speed.py --models lraspp_mobilenet_v3_large trained deeplabv3_resnet50 --masks medium --rows ria bf16 adaptive --repeats 3 $(BENCH)

gpu:
	$(PYTHON) benchmarks/gpu.py $(if $(WHEELS),--wheels $(WHEELS)) $(GPU)

fuzz: venv
	SEGFAITH_FUZZ=$(or $(FUZZ),20000) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_fuzz.py -p no:logging --durations=0 --numprocesses auto

security: venv
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive src

wheel: venv
	$(BIN)/python -m build --wheel

clean:
	rm -rf .venv build dist src/*.egg-info
