# What `sam build` does for each resource of template.yaml (BuildMethod: makefile): the target named after it runs in
# a copy of its CodeUri or ContentUri and fills ARTIFACTS_DIR. Not for use by hand: see ./dev.

# For Lambda (python3.13, arm64). local/aws/build.py sets both to build for this machine.
BUILD_PYTHON ?= python3.13
BUILD_PLATFORM ?= manylinux2014_aarch64

# Lambda's code folders are read-only and `sam package` dates all files 1980, so that ordinary .pyc never match their
# source: each cold start would compile everything. Hashed ones are used as they are. They hold the paths of Lambda.
COMPILE = $(BUILD_PYTHON) -m compileall -q --invalidation-mode unchecked-hash -s "$(ARTIFACTS_DIR)"

build-DependenciesLayer:
	$(BUILD_PYTHON) -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
	  --require-hashes --no-deps --only-binary :all: --platform $(BUILD_PLATFORM) \
	  --no-compile --target "$(ARTIFACTS_DIR)/python" --requirement requirements.txt
	rm -rf "$(ARTIFACTS_DIR)/python/bin"
	# 1.7 MB of a web page that no function serves.
	rm "$(ARTIFACTS_DIR)"/python/aws_lambda_powertools/event_handler/openapi/swagger_ui/*.js
	rm "$(ARTIFACTS_DIR)"/python/aws_lambda_powertools/event_handler/openapi/swagger_ui/*.css
	$(COMPILE) -p /opt "$(ARTIFACTS_DIR)"

build-SharedLayer:
	mkdir -p "$(ARTIFACTS_DIR)/python"
	cp -R chat_push "$(ARTIFACTS_DIR)/python"
	find "$(ARTIFACTS_DIR)" -name __pycache__ -prune -exec rm -r {} +
	$(COMPILE) -p /opt "$(ARTIFACTS_DIR)"

build-AuthorizeWebhook build-CleanupReceipts build-RegisterDevice build-SendChatPush:
	cp *.py "$(ARTIFACTS_DIR)"
	$(COMPILE) -p /var/task "$(ARTIFACTS_DIR)"
