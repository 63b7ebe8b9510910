# make help lists the targets. PYTHON=python3 uses that interpreter as it is instead of .venv.
STUDY ?= synthetic
SMOKE := build/smoke

ifdef PYTHON
  ENV :=
else
  PYTHON := .venv/bin/python
  ENV := .venv/.installed
endif

# Given values alone are passed on; everything else stays as the study's file says.
WHERE := $(if $(DEVICE),--device $(DEVICE)) $(if $(WORKSPACE),--workspace $(WORKSPACE))
REPORT := $(PYTHON) -m reidlib.pipeline --study $(STUDY) $(if $(EPOCHS),--epochs $(EPOCHS)) \
          $(if $(SEEDS),--seeds $(SEEDS)) $(WHERE)
# the studies that stand beside STUDY, such as pku-reid-folds
BESIDE := $(patsubst notebooks/params/%.yaml,%,$(wildcard notebooks/params/$(STUDY)-*.yaml))

.PHONY: help env data report paper weights verify lab lint test bench clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16
	@echo "  options: STUDY=synthetic|pku-reid|market1501  EPOCHS=5  SEEDS=0,1,2  DEVICE=cpu|cuda  PYTHON=python3"
	@echo "           AGAIN=1 (train finished runs anew)  JOBS=2 (runs at a time, make paper)  WORKSPACE=/results"
	@echo "  environment: REIDLIB_DATA and REIDLIB_WEIGHTS, folders of data sets and of pretrained weights"

env: $(ENV) ## create the environment in .venv

.venv/.installed: pyproject.toml
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "reidlib needs Python >= 3.11, python3 is " + sys.version.split()[0])'
	python3 -m venv .venv
	.venv/bin/python -m pip install -e '.[notebooks,test]'
	@touch $@

data: $(ENV) ## fetch and check the data of STUDY
	$(PYTHON) -m reidlib.fetch $(STUDY) $(if $(URL),--url $(URL))

report: $(ENV) ## run notebooks 01-07 for STUDY and write its report
	$(REPORT) $(if $(AGAIN),--again)

paper: $(ENV) ## all of STUDY: the report with both schedules, folds, selection and crowd
	for study in $(BESIDE); do $(PYTHON) -m reidlib.runs --study $$study $(WHERE) \
	  $(if $(JOBS),--jobs $(JOBS)) $(if $(AGAIN),--again) || exit 1; done
	$(REPORT) $(if $(AGAIN),--again)
	if [ -e "$${REIDLIB_DATA:-data}/market1501" ]; then $(PYTHON) -m reidlib.crowd --study $(STUDY) \
	  $(WHERE); else echo "no Market-1501, so no crowd: data/README.md says how to get it"; fi
	$(REPORT)

weights: $(ENV) ## write the trained models of STUDY with model cards into artifacts/STUDY/weights
	$(PYTHON) -m reidlib.weights --study $(STUDY) $(WHERE)

verify: $(ENV) ## compare the tracked tables, reports and README with the tracked runs
	$(PYTHON) -m reidlib.verify

lab: $(ENV) ## open the notebooks in JupyterLab
	$(PYTHON) -m jupyterlab --notebook-dir=notebooks

lint: $(ENV) ## check the code's style
	$(PYTHON) -m ruff check .

test: lint ## lint, unit tests, and all notebooks with the smoke parameters
	$(PYTHON) -m pytest
	rm -rf $(SMOKE) && mkdir -p $(SMOKE)/notebooks
	for notebook in notebooks/0*.ipynb; do \
	  $(PYTHON) -m papermill --prepare-only --no-progress-bar $$notebook $(SMOKE)/$$notebook \
	    -p study smoke -p workspace $(CURDIR)/$(SMOKE) || exit 1; done
	REIDLIB_HEADLESS=1 $(PYTHON) -m pytest --nbval-lax --nbval-current-env $(SMOKE)/notebooks

bench: $(ENV) ## measure speed and memory against floors; DEVICE=cuda: training and embedding there
	$(if $(filter cuda,$(DEVICE)),,for part in evaluation reranking search; do \
	  $(PYTHON) -m benchmarks.$$part || exit 1; done)
	for part in training embedding; do \
	  $(PYTHON) -m benchmarks.$$part --device $(or $(DEVICE),cpu) || exit 1; done

clean: ## remove what tests and tools left behind; results, data and .venv stay
	rm -rf build .hypothesis .pytest_cache .ruff_cache
