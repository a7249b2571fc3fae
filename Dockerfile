# One image for nodes, coordinator and operator: `walplane` and `walplane-operator`, non-root, slim.
#
#   docker build -t walplane:dev .
#   docker build -t walplane:dev --build-arg BASE=my/python:3.11 --build-arg INDEX=https://index/simple .
#
# Where containers reach no package index, `python -m devservices.images.walplane --offline` puts
# wheels into ./wheels first, and they are taken instead. Classic builder and BuildKit both build it.
# Both stages need the same base, since the virtual environment links to its Python.
ARG BASE=python:3.11.13-slim-bookworm

FROM ${BASE} AS build
# pip's own index if empty
ARG INDEX=
# pyproject.toml is named so that the copy has something to copy when there are no wheels.
COPY pyproject.toml wheels* /wheels/
RUN set -eu; \
    if ls /wheels/*.whl >/dev/null 2>&1; then export PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels; \
    elif [ -n "${INDEX}" ]; then export PIP_INDEX_URL="${INDEX}"; fi; \
    python3 -c "import tomllib; project = tomllib.load(open('/wheels/pyproject.toml', 'rb'))['project']; extras = project['optional-dependencies']; print(*project['dependencies'], *(one for name in ('standalone', 'node', 'pulsar', 'otel', 'operator') for one in extras[name] if not one.startswith('walplane[')), sep='\n')" >/wheels/requirements.txt; \
    python3 -m venv --without-pip /opt/venv; \
    python3 -m pip --python /opt/venv/bin/python install -q --no-cache-dir --disable-pip-version-check -r /wheels/requirements.txt; \
    rm -rf /opt/venv/lib/python3*/site-packages/pyarrow/tests /opt/venv/lib/python3*/site-packages/pyarrow/include /opt/venv/lib/python3*/site-packages/pyarrow/src
COPY pyproject.toml README.md /src/
COPY dataplane/src /src/dataplane/src
COPY operator/src /src/operator/src
RUN set -eu; \
    if ls /wheels/*.whl >/dev/null 2>&1; then export PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels; \
    elif [ -n "${INDEX}" ]; then export PIP_INDEX_URL="${INDEX}"; fi; \
    python3 -m pip --python /opt/venv/bin/python install -q --no-cache-dir --disable-pip-version-check --no-deps /src

FROM ${BASE}
LABEL org.opencontainers.image.title="walplane" \
      org.opencontainers.image.description="A streaming write-ahead log, run on Kubernetes by its own operator" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
ENTRYPOINT ["walplane"]
CMD ["--help"]
