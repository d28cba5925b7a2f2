# The machine on which act runs the steps of a workflow, where no image act-runner:local is there already.
FROM python:3.13-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl git \
    && rm -rf /var/lib/apt/lists/*
