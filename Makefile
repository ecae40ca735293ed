# `make demo` and `make test` set everything up by themselves; nothing is done twice.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DATASET ?= synthetic
OUT ?= out/demo/$(DATASET)
export PIP_DISABLE_PIP_VERSION_CHECK = 1

SUITE ?= out/notebooks

.PHONY: demo test test-all lab check notebooks site app lock results scorecard campaign campaign-status bench measure figures clean

demo: $(READY)  ## train three losses, rank, see which negatives each listens to
	$(BIN)/drrl notebook 00_start_here --out $(OUT) -p dataset=$(DATASET)

PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal
test: $(READY) check  ## lint, types, notebooks without outputs, the quick tests: some five minutes on two cores
	$(PYTEST) -m "not slow"

test-all: $(READY)  ## what `make test` leaves out: processes that are killed, browsers, real data
	$(PYTEST) -m slow

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify notebooks/*.ipynb
	$(BIN)/mypy

lab: $(READY)  ## JupyterLab on 127.0.0.1, with its token and this environment's kernel
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) --ServerApp.ip=127.0.0.1 --ServerApp.root_dir=$(CURDIR)/notebooks

notebooks: $(READY)  ## execute them all, side by side; TINY=1: as the tests do, in a minute or two
	$(BIN)/drrl notebooks --out $(SUITE) $(if $(TINY),--parameters tests/tiny.yaml)

site: $(READY)  ## lessons, results, reference: static pages in out/site, of what was executed
	test -d $(SUITE) || $(MAKE) notebooks
	$(BIN)/drrl site --executed $(SUITE)

# notebooks/voila.json: a token, this machine alone, and a policy that forbids the style sheet which Voilà's pages ask for elsewhere
app: $(READY)  ## the notebooks without their code, for a class: the address that is printed, with its token
	cd notebooks && $(CURDIR)/$(BIN)/voila .

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python >= 3.11 is needed, this is " + sys.version.split()[0] + ": make PYTHON=/path/to/python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(READY)

# torch is pinned by hand: its newest release brings gigabytes of CUDA that CPU machines do not need.
lock: $(READY)  ## pin again what pyproject.toml allows
	$(BIN)/pip-compile --quiet --upgrade --upgrade-package 'torch==2.13.0' --all-extras \
		--strip-extras --no-header --annotation-style line --no-emit-index-url --no-emit-find-links \
		--no-emit-trusted-host --output-file requirements.lock pyproject.toml
	sed -i 's/^\(torch==[0-9.]*\)+cpu/\1/' requirements.lock

TUNED := sl ccl drrl bsl mse bce bpr drrl-exact drrl-penalty drrl-shared drrl-fixed advinfonce llpauc
RESULTS ?= out/results
TUNE = $(BIN)/drrl tune $(1) --csv $(RESULTS)/runs.csv --loss
# RESULTS=data/results adds to what is committed, and sweeps leave out what it has
results: $(READY)  ## the README's tables, run again: some twenty hours on one core; what was stopped continues
	for loss in $(TUNED); do $(call TUNE,amazon-beauty) $$loss --trials 20 --seeds 3 || exit 1; done
	for loss in sl ccl drrl; do \
		$(call TUNE,amazon-electronics) $$loss --trials 10 --seeds 3 || exit 1; done
	for loss in llpauc bpr; do $(call TUNE,amazon-electronics) $$loss --trials 5 --seeds 3 || exit 1; done
	for loss in sl ccl drrl bpr bsl llpauc advinfonce; do \
		$(call TUNE,amazon-electronics-temporal) $$loss --trials 10 --seeds 3 || exit 1; done
	for loss in sl ccl drrl bsl mse bce bpr advinfonce llpauc; do \
		$(call TUNE,amazon-beauty --backbone lightgcn) $$loss --trials 8 --seeds 3 || exit 1; done
	for loss in sl ccl drrl; do \
		$(call TUNE,amazon-beauty --set noise=0.3) $$loss --trials 12 --seeds 3 || exit 1; done
	$(BIN)/drrl plan amazon-beauty --results $(RESULTS) --out $(RESULTS)/sweeps
	for file in data/sweeps/*.yaml $(RESULTS)/sweeps/*.yaml; do $(BIN)/drrl sweep $$file --csv $(RESULTS)/runs.csv || exit 1; done
	$(BIN)/drrl harvest --results $(RESULTS)
	$(BIN)/drrl scorecard --results $(RESULTS)

scorecard: $(READY)  ## the paper's numbers and claims beside what data/results holds, and the pages' tables
	$(BIN)/drrl scorecard --fill README.md --fill docs/results.md

campaign: $(READY)  ## the long runs of data/campaign.yaml, one thread, lowest priority; Ctrl-C stops it
	OMP_NUM_THREADS=1 nice -n 19 $(BIN)/drrl campaign

campaign-status: $(READY)  ## what of it is done, what is next, and how long it takes
	$(BIN)/drrl campaign --status

BENCH ?= out/bench.json
bench: $(READY)  ## ours against the obvious implementation, in turns; needs the real data
	$(BIN)/python tests/benchmarks/bench.py --json $(BENCH)
	$(BIN)/python tests/benchmarks/bench_dro.py --json $(BENCH)
	$(BIN)/python tests/benchmarks/bench_explorers.py --json $(BENCH)

measure: $(READY)  ## lines of each room, the longest functions, types, words
	$(BIN)/python tests/benchmarks/measure.py

figures: demo  ## the pictures this README shows, from runs of notebooks 00 and 01 and the records of 07
	$(BIN)/drrl notebook 01_worst_case --out out/figures
	$(BIN)/drrl notebook 07_false_negatives --out out/figures -p dataset=amazon-beauty -p trials=0
	mkdir -p figures && cp out/demo/synthetic/weights.png figures/
	cd out/figures && cp sl_to_ccl.gif order_strip.png breakdown.png ../../figures/

clean:
	rm -rf $(VENV) out
