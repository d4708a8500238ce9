# platemint on a CPU.
#   docker build -t platemint .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" platemint generate quickstart
FROM python:3.11-slim

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

# The build of torch without CUDA, which PyPI does not have for Linux. A layer of its own: it changes seldom.
COPY constraints.txt /src/
RUN pip install -c /src/constraints.txt --index-url https://download.pytorch.org/whl/cpu torch

# A slim image has no libGL, which opencv-python needs for windows; platemint opens none.
COPY setup.py setup.cfg README.md LICENSE __init__.py py.typed run_pipeline.py /src/
COPY models /src/models
COPY pipeline /src/pipeline
COPY recipes /src/recipes
RUN pip install -c /src/constraints.txt "/src[detector,ray,webdataset]" \
    && pip uninstall -y opencv-python \
    && pip install --no-deps --force-reinstall -c /src/constraints.txt opencv-python-headless

# Where libraries keep their caches, whoever runs the program.
ENV HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /data
ENTRYPOINT ["platemint"]
CMD ["--help"]
