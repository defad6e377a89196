# Every job of recsys, and its service. Not root; healthy when lists can be made.
#
#   docker build -t recsys .        PyPI's torch for Linux brings CUDA: for a small image of a CPU alone, give the address
#                                   of PyTorch's CPU packages by --build-arg PIP_EXTRA_INDEX_URL=...
#   docker run -v $PWD:/data recsys train ratings.csv -m edlae -o model
#   docker run -v $PWD:/data -p 8000:8000 recsys serve model --ratings ratings.csv --host 0.0.0.0
FROM python:3.11-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 recsys

WORKDIR /opt/recsys
COPY setup.py pyproject.toml constraints.txt README.md LICENSE ./
COPY recsys recsys
COPY pipelines pipelines
COPY data/sample data/sample
ARG PIP_EXTRA_INDEX_URL
RUN pip install --no-cache-dir -c constraints.txt ".[all]"

USER recsys
WORKDIR /data
ENV MLFLOW_DISABLE_TELEMETRY=true
EXPOSE 8000
HEALTHCHECK --start-period=60s --interval=15s --timeout=5s CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('GET', '/v2/health/ready'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["recsys"]
CMD ["--help"]
