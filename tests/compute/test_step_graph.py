"""Steps as one CUDA graph: on a CPU by a stand-in for torch's graph that records and replays, as it does."""

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from workflow_scripts.lib.compute import multiprocess, step_graph
from workflow_scripts.lib.compute.step_graph import WARM_UP, Compiled, StepGraph

CPU = torch.device("cpu")


class Gpu:
    """Stand-in for torch's CUDA graphs: a capture computes nothing, and a replay does what was captured."""

    capturing = False

    def __init__(self):
        self.replays = 0
        self.captured = None

    def CUDAGraph(self):
        return self

    def replay(self):
        self.replays += 1
        self.captured()

    @contextlib.contextmanager
    def graph(self, graph, stream, capture_error_mode):
        self.capturing = True
        try:
            yield
        finally:
            self.capturing = False

    def synchronize(self):
        pass


@pytest.fixture
def gpu(monkeypatch):
    pretended = Gpu()
    monkeypatch.setattr(step_graph, "why_not", lambda where: None)
    for name in ("CUDAGraph", "graph", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, getattr(pretended, name))
    return pretended


def test_a_step_is_captured_after_its_first_calls_and_sees_each_call_s_inputs(gpu):
    state, out, calls = torch.zeros(()), torch.zeros(()), []

    def step(value, nothing):
        if gpu.capturing:
            gpu.captured = lambda: step(value, nothing)
            return out
        calls.append(value)
        state.add_(value)
        return out.copy_(state) if gpu.captured else state.clone()

    graph = StepGraph(step, CPU, "toy")
    found = [graph(torch.tensor(float(number)), None) for number in range(1, WARM_UP + 4)]
    # Results of earlier calls are not overwritten by later ones.
    assert [float(value) for value in found] == [1, 3, 6, 10, 15, 21]
    assert gpu.replays == 3
    # One and the same tensor holds the inputs of all replays.
    assert all(value is calls[WARM_UP] for value in calls[WARM_UP:])
    assert graph.describe() == "toy: one CUDA graph a step"


@pytest.fixture
def warnings(monkeypatch):
    lines = []
    monkeypatch.setattr(step_graph.log, "warning", lambda form, *words: lines.append(form % words))
    return lines


def test_what_cannot_be_captured_runs_operation_by_operation_and_says_why_once(gpu, warnings):
    def step(value):
        if gpu.capturing:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        return value + 1

    graph = StepGraph(step, CPU, "toy")
    found = [float(graph(torch.tensor(float(number)))) for number in range(6)]
    assert found == [1, 2, 3, 4, 5, 6] and gpu.replays == 0
    assert len(warnings) == 1 and warnings[0].startswith("toy: step by step, because")
    assert "stream is capturing" in warnings[0] and "\n" not in warnings[0]


def test_on_a_cpu_steps_are_just_calls():
    graph = StepGraph(lambda value: value * 2, CPU, "toy")
    with graph.stream():
        assert [float(graph(torch.tensor(3.0))) for _ in range(WARM_UP + 2)] == [6.0] * (WARM_UP + 2)
    assert graph.describe() == "toy: step by step, because there is no GPU"


def test_several_processes_do_not_capture(monkeypatch):
    assert step_graph.why_not(torch.device("cuda")) is None
    monkeypatch.setattr(multiprocess, "size", lambda: 2)
    assert "several processes" in step_graph.why_not(torch.device("cuda"))


def test_where_nothing_compiles_the_function_runs_as_it_is(monkeypatch, warnings):
    def broken(function, dynamic):
        def refuse(*inputs):
            raise ImportError("no working compiler\nmore")

        return refuse

    monkeypatch.setattr(torch, "compile", broken)
    double = Compiled(lambda value: value * 2, "toy")
    assert [double(number) for number in (1, 2)] == [2, 4]
    assert warnings == ["toy: not compiled, because no working compiler"]


def test_lack_of_memory_is_no_fault_of_the_compiler(monkeypatch):
    def small(function, dynamic):
        def refuse(*inputs):
            raise torch.OutOfMemoryError("CUDA out of memory")

        return refuse

    monkeypatch.setattr(torch, "compile", small)
    with pytest.raises(torch.OutOfMemoryError):
        Compiled(lambda value: value, "toy")(1)


def test_trainings_side_by_side_are_captured_one_after_the_other(gpu, monkeypatch):
    """A GPU refuses a capture, or any call that waits for it, while another thread captures."""

    @contextlib.contextmanager
    def graph(graph, stream, capture_error_mode):
        if gpu.capturing:
            raise RuntimeError("operation not permitted when stream is capturing")
        gpu.capturing = True
        time.sleep(0.05)
        yield
        gpu.capturing = False

    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: graph(None, None, "").__enter__())
    gpu.captured = lambda: None
    steps = [StepGraph(lambda value: value.clone(), CPU, f"arm {number}") for number in range(2)]
    start = threading.Barrier(2)

    def train(step):
        start.wait()
        for _ in range(WARM_UP + 3):
            step(torch.ones(()))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(train, steps))
    assert [step.reason for step in steps] == [None, None]
