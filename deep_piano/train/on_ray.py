"""TRAIN on Ray: the loop of `train.loop`, in several workers that train one model.

Ray Train places the workers, restarts all of them when one is lost, and gives each ``TF_CONFIG``.
The checkpoints are the run's own: the first worker writes them into the run's folder before it
reports. So a lost worker resumes the run as ``--resume`` does, and a run begun here may be finished
in one process, or the other way round. `loop` defines what a run does; this module where it runs.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any
from urllib.parse import urlsplit

from deep_piano.config.sections import TrainConfig
from deep_piano.dataset.reader import Dataset
from deep_piano.errors import DeepPianoError, InputError, TrainingError, one_line
from deep_piano.infra.backend import keras_backend, load_keras, require_keras
from deep_piano.infra.cluster import metrics
from deep_piano.infra.cluster.connection import ask_for, connected, gpus_each, total
from deep_piano.infra.cluster.scheduling import Silence
from deep_piano.infra.storage import bucket
from deep_piano.infra.storage.folder import Folder
from deep_piano.infra.storage.local import LocalFolder
from deep_piano.infra.storage.s3 import S3Folder
from deep_piano.models.checkpoint import BEST_OF_RUN, Checkpoint, load
from deep_piano.models.config import ModelConfig
from deep_piano.train.loop import Update, go_on
from deep_piano.train.start import begin

logger = logging.getLogger(__name__)

_RAY = "ray"  # the folder within the run for Ray Train's own files
_POLL_S = 0.5


def begin_and_train(
    data: Folder,
    run: Folder,
    settings: TrainConfig,
    *,
    resume: bool = False,
    init: Checkpoint | None = None,
    progress: Callable[[Update], None] | None = None,
) -> Checkpoint:
    """Begin a run, or resume it, and train to its end, here or on Ray; return its best checkpoint.

    Parameters
    ----------
    data : Folder
        Of a dataset.
    run, settings, resume, init
        As for `start.begin`; `settings.workers` says whether to train on Ray.
    progress
        As for `loop.go_on`.

    Raises
    ------
    InputError, DeepPianoError
        As `start.begin`, `loop.go_on` and `train` do.
    """
    require_keras()
    begun = time.monotonic()
    losses: dict[str, float] = {}  # the latest: Ray drops a gauge that is not set again

    def told(now: Update) -> None:
        losses["train"] = now.loss
        if now.validation_loss is not None:
            losses["validation"] = now.validation_loss
            _tell(now)
        metrics.level("deep_piano_training_updates", now.step)
        metrics.level("deep_piano_training_steps_per_second", now.per_s)
        for split, loss in losses.items():
            metrics.level("deep_piano_training_loss", loss, split=split)
        if progress is not None:
            progress(now)

    with Dataset(data) as dataset:
        chosen, network = begin(dataset, run, settings, resume=resume, init=init)
        facts = dict(stage="train", workers=chosen.workers, updates=chosen.steps)
        logger.info("train: begins", extra=dict(facts, event="begun"))
        way = go_on if chosen.workers is None else train
        best = way(dataset, run, chosen, network, init=init, progress=told)
    took_s = round(time.monotonic() - begun, 3)
    logger.info("train: ended", extra=dict(facts, event="ended", took_s=took_s, **best.facts))
    return best


def _tell(now: Update) -> None:
    """Log a validation."""
    losses = dict(loss=now.loss, validation_loss=now.validation_loss)
    facts = dict(stage="train", event="validated", update=now.step, per_s=round(now.per_s, 1))
    logger.info("train: %s", now.text, extra=dict(facts, **losses))


def train(
    dataset: Dataset,
    run: Folder,
    settings: TrainConfig,
    config: ModelConfig,
    *,
    init: Checkpoint | None = None,
    progress: Callable[[Update], None] | None = None,
) -> Checkpoint:
    """Train from where a run stands to its end, on several workers; return its best checkpoint.

    Parameters
    ----------
    dataset, run, settings, config, init, progress
        As for `loop.go_on`. All nodes of the cluster must see dataset and run.

    Raises
    ------
    InputError
        When the cluster lacks the requested CPUs or GPUs.
    DeepPianoError
        As `loop.go_on` does; when workers were lost more often than `settings.max_failures`; when
        they reported nothing for `settings.silence_seconds`.
    """
    workers = settings.workers or 1
    if keras_backend() != "tensorflow":
        raise InputError(
            f"several workers train on TensorFlow only, and KERAS_BACKEND is "
            f"{os.environ['KERAS_BACKEND']!r}. Unset it, or leave --workers out."
        )
    os.environ["KERAS_BACKEND"] = "tensorflow"  # for Ray's trainer, which loads Keras by itself
    with connected():
        gpus = _gpus_per_worker(settings, workers)
        load_keras()  # before Ray's trainer does, which does not silence its messages
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.tensorflow import TensorflowTrainer
        from ray.util.queue import Queue
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        for name in ("ray.train", "ray.data", "ray"):
            logging.getLogger(name).setLevel(logging.ERROR)
        # On this node: the loss of another one must not end it
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        news = Queue(maxsize=100, actor_options={"num_cpus": 0, "scheduling_strategy": here})
        path, filesystem = _storage(run)
        trainer = TensorflowTrainer(
            _work,
            train_loop_config={
                "dataset": dataset.folder,
                "run": run,
                "settings": settings,
                "config": config,
                "init": ray.put(init),
                "news": news,
                "key": os.urandom(32),
            },
            scaling_config=ScalingConfig(
                num_workers=workers,
                use_gpu=gpus > 0,
                resources_per_worker={"CPU": settings.cpus_per_worker}
                | ({"GPU": gpus} if gpus else {}),
            ),
            run_config=RunConfig(
                name=_RAY,
                storage_path=path,
                storage_filesystem=filesystem,
                failure_config=FailureConfig(max_failures=settings.max_failures),
            ),
        )
        result = _result(trainer, settings, news, progress or (lambda now: None))
    if "error" in result:
        raise TrainingError(result["error"])
    return load(run.inner(BEST_OF_RUN))


def _result(
    trainer: Any, settings: TrainConfig, news: Any, progress: Callable[[Update], None]
) -> dict[str, Any]:
    from ray.exceptions import RayError
    from ray.train import TrainingFailedError

    silence = Silence(settings.silence_seconds, "train.silence_seconds")
    try:
        result = fit_with_reports(trainer, news, progress, silence, settings.workers or 1)
        return dict(result.return_value or {})
    except TrainingFailedError as error:
        logger.debug("training failed", exc_info=True)
        reasons = [line for line in str(error).splitlines() if line.strip()]
        raise DeepPianoError(
            f"the workers failed more than {settings.max_failures} times, the last time with: "
            f"{one_line(reasons[-1]) if reasons else 'no reason given'}. --resume continues from "
            "the last checkpoint; --debug before the command shows more."
        ) from error
    except RayError as error:
        raise DeepPianoError(
            f"Ray Train's controller was lost ({type(error).__name__}). --resume continues from "
            "the last checkpoint."
        ) from error


def _gpus_per_worker(settings: TrainConfig, workers: int) -> float:
    """Return the GPUs of each worker; raise InputError where the cluster lacks resources."""
    if settings.nodes_within_seconds:
        ask_for(
            [{"CPU": settings.cpus_per_worker, "GPU": settings.gpus_per_worker or 0.0}] * workers,
            within_s=settings.nodes_within_seconds,
        )
    cpus, gpus = total("CPU"), total("GPU")
    each = gpus_each(settings.gpus_per_worker, workers)
    for name, asked, there, option in (
        ("GPUs", workers * each, gpus, "--gpus-per-worker 0 to train on CPUs"),
        ("CPUs", workers * settings.cpus_per_worker, cpus, "a smaller train.cpus_per_worker"),
    ):
        if asked > there:
            raise InputError(
                f"{workers} workers ask for {asked:g} {name}, and the cluster has {there:g}. Give "
                f"fewer --workers, {option}, or add nodes."
            )
    return each


def _storage(run: Folder) -> tuple[str, Any]:
    """Return where Ray Train keeps its own files: a path, and its file system unless local."""
    if isinstance(run, LocalFolder):
        return str(run.root.resolve()), None
    assert isinstance(run, S3Folder)
    from pyarrow.fs import S3FileSystem

    service = bucket.connect(run.bucket.endpoint, run.bucket.region, run.bucket.attempts).meta
    endpoint = urlsplit(service.endpoint_url)
    filesystem = S3FileSystem(  # credentials: from the environment or a role, as for boto3
        endpoint_override=endpoint.netloc, scheme=endpoint.scheme, region=service.region_name
    )
    return f"{run.bucket.name}/{run.prefix}".rstrip("/"), filesystem


def fit_with_reports(
    trainer: Any, news: Any, progress: Callable[[Update], None], silence: Silence, workers: int
) -> Any:
    """Run a trainer in a thread, and pass on the first worker's reports until it has ended.

    `silence` ends it where workers cannot be placed again: Ray Train would retry for ever.
    """
    from ray.util.queue import Empty

    fitted: Future[Any] = Future()

    def fit() -> None:
        try:
            fitted.set_result(trainer.fit())
        except BaseException as error:
            fitted.set_exception(error)

    # In the main thread, Ray Train would make Ctrl+C end the process with exit code 0.
    threading.Thread(target=fit, name="Ray Train", daemon=True).start()
    while not fitted.done():
        try:
            now = news.get(timeout=_POLL_S)
        except Empty:
            silence.require_short(workers)
        else:
            silence.end()
            progress(now)
    for now in news.get_nowait_batch(news.qsize()):
        progress(now)
    return fitted.result()


def _work(job: Mapping[str, Any]) -> dict[str, Any]:
    """Train in one worker; return the error that a retry would not solve, if there is one.

    When a worker is lost, Ray Train calls it again in all workers: each resumes from the last
    checkpoint.
    """
    import ray
    import ray.train

    settings: TrainConfig = job["settings"]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    threads = max(1, int(settings.cpus_per_worker))
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    from deep_piano.train.workers import Workers, join

    size = ray.train.get_context().get_world_size()
    workers = join(job["key"]) if size > 1 else Workers()

    def tell(now: Update) -> None:
        try:
            job["news"].put_nowait(now)
        except Exception:  # full or lost: progress reports must not end a training
            logger.debug("a progress report was dropped", exc_info=True)

    def report(row: Mapping[str, Any]) -> None:
        ray.train.report(dict(row))

    try:
        with Dataset(job["dataset"]) as dataset:
            go_on(
                dataset,
                job["run"],
                settings,
                job["config"],
                init=ray.get(job["init"]),
                workers=workers,
                progress=tell if workers.rank == 0 else None,
                validated=report,
            )
    except TrainingError as error:  # on all workers, and a retry would raise it again
        return {"error": str(error)}
    return {}
