# One image for operator and daemons, non-root, read-only root file system; data in the volume /data.
# Built from a lock with hashes: `uv export` makes it from uv.lock in the first stage.
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE} AS build
ARG TARGETARCH
WORKDIR /build
# LevelDB's binding has no wheel for arm64: it is built there.
RUN if [ "$TARGETARCH" = arm64 ]; then apt-get update && apt-get install -y --no-install-recommends build-essential python3-dev libleveldb-dev liberasurecode-dev; fi
COPY pyproject.toml uv.lock README.md ./
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir "uv>=0.5" \
 && /opt/uv/bin/uv export --quiet --frozen --no-dev --extra daemon --extra operator --no-emit-project -o requirements.txt \
 && python3 -m venv /opt/s4 && /opt/s4/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.txt
COPY daemon daemon
COPY operator operator
RUN /opt/s4/bin/pip install --no-cache-dir --no-deps . && find /opt/s4 -name __pycache__ -prune -exec rm -rf {} +

FROM ${BASE}
ARG TARGETARCH
RUN if [ "$TARGETARCH" = arm64 ]; then apt-get update && apt-get install -y --no-install-recommends libleveldb1d liberasurecode1 && rm -rf /var/lib/apt/lists/*; fi
COPY --from=build /opt/s4 /opt/s4
ENV PATH=/opt/s4/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 S4_LOG_FORMAT=json
RUN mkdir /data && chown 10001:10001 /data
USER 10001:10001
VOLUME /data
EXPOSE 9000 9001
ENTRYPOINT ["s4"]
CMD ["server", "/data/store"]
