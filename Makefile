# `make help` lists the targets. PYTHON=python3 uses that interpreter as it is, instead of .venv.
STUDY ?= synthetic
SMOKE := build/smoke

# Values reach the commands through the environment, quoted, so that nothing in them is run. Only
# given ones are passed on; everything else stays as the study's file says.
VALUES := PYTHON STUDY EPOCHS SEEDS DEVICE WORKSPACE JOBS AGAIN URL LAB_ARGS LOCKED
$(foreach name,$(VALUES),$(eval override $(name) := $$(value $(name))))
export $(VALUES)

ifdef PYTHON
  ENV :=
  # not installed there, and the notebooks' kernels start in other folders
  export PYTHONPATH := $(CURDIR)$(if $(value PYTHONPATH),:$(value PYTHONPATH))
else
  override PYTHON := .venv/bin/python
  ENV := $(if $(filter-out 0 no,$(LOCKED)),.venv/.locked,.venv/.installed)
endif

# the shell shows what it runs, with the values
REIDLIB := set -x; "$$PYTHON" -m reidlib
WHERE := $${DEVICE:+--device "$$DEVICE"} $${WORKSPACE:+--workspace "$$WORKSPACE"}
# what git keeps of a notebook that JupyterLab has saved: .gitattributes has the filter
STRIP := -m nbstripout --keep-id --extra-keys metadata.language_info
TRAIN_AGAIN := $(if $(filter-out 0 no,$(AGAIN)),--again)
HAS_MARKET := [ -e "$${REIDLIB_DATA:-data}/market1501" ]
REPORT := $(REIDLIB) report --study "$$STUDY" $${EPOCHS:+--epochs "$$EPOCHS"} \
          $${SEEDS:+--seeds "$$SEEDS"} $${JOBS:+--jobs "$$JOBS"} $(WHERE)

.PHONY: help env data report paper weights verify lab lint test bench constraints clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 20
	@echo "  options: STUDY=synthetic|pku-reid|market1501|your own  EPOCHS=5  SEEDS=0,1,2"
	@echo "           DEVICE=cpu|cuda  WORKSPACE=/results  AGAIN=1 (train finished runs again)"
	@echo "           JOBS=2 (runs at a time, report and paper)  PYTHON=python3  LOCKED=1 (make env)"
	@echo "           LAB_ARGS='--no-browser --port 8890' (make lab)  URL=... (make data)"
	@echo "  environment: REIDLIB_DATA and REIDLIB_WEIGHTS, folders of data sets and of pretrained weights"

env: $(ENV) ## create the environment in .venv; LOCKED=1: with the versions of constraints.txt

.venv/.installed .venv/.locked: pyproject.toml
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "reidlib needs Python >= 3.11, python3 is " + sys.version.split()[0])'
	python3 -m venv .venv
	.venv/bin/python -m pip install $(if $(filter %.locked,$@),-c constraints.txt) -e '.[notebooks,test]'
	@git config filter.strip-outputs.clean '.venv/bin/python $(STRIP)' \
	  || echo "not a git clone: outputs of notebooks are not stripped"
	@touch .venv/.installed $@

.venv/.locked: constraints.txt

data: $(ENV) ## download and check the data of STUDY
	@$(REIDLIB) download $${URL:+--url "$$URL"} -- "$$STUDY"

report: $(ENV) ## run notebooks 00-07 for STUDY and write its report
	@$(REPORT) $(TRAIN_AGAIN)

paper: $(ENV) ## all of STUDY: the report, and all that belongs to it, STUDY-*.yaml and distractors
	@[ ! -e notebooks/params/"$$STUDY".yaml ] || for file in notebooks/params/"$$STUDY"-*.yaml; do \
	  case "$$file" in *-market1501.yaml) $(HAS_MARKET) || continue;; esac; \
	  [ ! -e "$$file" ] || ( name=$$(basename "$$file" .yaml); $(REIDLIB) study --study "$$name" \
	    $(WHERE) $${JOBS:+--jobs "$$JOBS"} $(TRAIN_AGAIN) ) || exit 1; done
	@$(REPORT) $(TRAIN_AGAIN)
	@if $(HAS_MARKET); then $(REIDLIB) distractors --study "$$STUDY" $(WHERE); \
	  else echo "no Market-1501, so nothing with it: data/README.md says how to get it"; fi
	@$(REPORT)

weights: $(ENV) ## write the trained models of STUDY with model cards into artifacts/STUDY/weights
	@$(REIDLIB) export --study "$$STUDY" $(WHERE)

verify: $(ENV) ## compare the tracked tables, reports and README with the tracked runs
	@$(REIDLIB) verify

lab: $(ENV) ## open the notebooks in JupyterLab
	set -f; "$$PYTHON" -m jupyterlab --notebook-dir=notebooks $$LAB_ARGS

lint: $(ENV) ## check the code's style
	"$$PYTHON" -m ruff check .

test: lint ## lint, unit tests, and all notebooks with the smoke parameters
	"$$PYTHON" -m tests.smoke_notebooks $(SMOKE)
	REIDLIB_HEADLESS=1 "$$PYTHON" -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
	  --nbval-lax --nbval-current-env $(SMOKE)/notebooks tests

bench: $(ENV) ## measure speed and memory against floors; DEVICE=cuda: training and embedding there
	if [ "$$DEVICE" != cuda ]; then for part in evaluation reranking; do \
	  "$$PYTHON" -m tests.benchmarks.$$part || exit 1; done; fi
	for part in training embedding; do \
	  "$$PYTHON" -m tests.benchmarks.$$part --device "$${DEVICE:-cpu}" || exit 1; done

constraints: $(ENV) ## write constraints.txt: the versions behind the tracked results
	"$$PYTHON" -m tests.constraints

clean: ## remove what tests and tools left behind; results, data and .venv stay
	rm -rf build .hypothesis .pytest_cache .ruff_cache
