"""The synthetic world: the same everywhere, balanced, geometrically right, and with actions that are what they say."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import sample_of

from layerlock import draws
from layerlock.data import ClipConfig, Source, synthetic
from layerlock.data.motion import ACTIONS, Motion, State, labels, mirrored, perform
from layerlock.data.render import TAN_HALF_VIEW, render
from layerlock.data.scene import Bodies, Scenes, Texture, build_scenes
from layerlock.data.synthetic import SyntheticSource, render_clip, render_clips
from layerlock.errors import LayerlockError

GOLDEN = Path(__file__).parent / "golden_world.npz"
STATE = {
    "along_x": 0.4,
    "along_y": 0.6,
    "along_z": 0.5,
    "gap": 0.4,
    "sway": 2.0,
    "bearing": 1.0,
    "yaw": 0.3,
    "apex": 1.2,
    "contact": 0.6,
    "stretch": 0.5,
    "rising": True,
    "clockwise": False,
}
SECOND = torch.linspace(-0.5, 0.5, 101, dtype=torch.float64)


def motion(action: str, time_t: torch.Tensor = SECOND) -> Motion:
    """The motion of one scene through `STATE`, of tensors without the dimension of scenes."""
    state = State(**{name: torch.tensor(np.array([value])) for name, value in STATE.items()})
    moved = perform(torch.tensor([ACTIONS.index(action)]), state, time_t)
    return Motion(**{name: path[0] for name, path in vars(moved).items()})


def small_clip(seed: int, index: int) -> np.ndarray:
    return render_clip(seed, index, frames=3, height=16, width=16, fps=3).video_tchw.numpy()


def test_a_clip_is_a_function_of_seed_and_index_alone() -> None:
    alone = render_clip(3, 7, frames=4, height=32, width=32)
    for index in (9, 2):
        other = render_clip(3, index, frames=4, height=32, width=32)
        assert not torch.equal(other.video_tchw, alone.video_tchw)
    again = render_clip(3, 7, frames=4, height=32, width=32)
    assert torch.equal(again.video_tchw, alone.video_tchw)
    assert torch.equal(again.depth_thw, alone.depth_thw)
    assert not torch.equal(render_clip(4, 7, frames=4, height=32, width=32).video_tchw, alone.video_tchw)


def test_pixels_stay_within_one_grey_level_of_the_stored_ones() -> None:
    golden = np.load(GOLDEN)
    now = np.stack([small_clip(0, index) for index in range(len(ACTIONS))])
    assert np.abs(now.astype(int) - golden["video"].astype(int)).max() <= 1
    assert labels(0, torch.arange(26)).tolist() == golden["label"].tolist()


def test_frames_do_not_depend_on_how_many_are_drawn() -> None:
    long, short = (render_clip(0, 5, frames=n, height=24, width=24) for n in (9, 5))
    assert torch.equal(long.video_tchw[2:7], short.video_tchw)


def test_labels_are_balanced_and_in_no_fixed_order() -> None:
    label_b = labels(1, torch.arange(13 * 50))
    assert label_b.bincount().tolist() == [50] * 13
    assert len({tuple(row.tolist()) for row in label_b.reshape(50, 13)}) == 50
    assert torch.equal(labels(1, torch.tensor([40, 3])), label_b[[40, 3]])
    assert tuple(sorted(ACTIONS)) == ACTIONS
    assert len(ACTIONS) >= 12


def test_no_moment_tells_the_action() -> None:
    """Far from time 0 too, where everybody is has the same distribution under every action (Kolmogorov-Smirnov)."""
    time_t = torch.tensor([-0.5, 0.7], dtype=torch.float64)
    u_nb = draws.uniform(0, "test", torch.arange(700), 8).T
    drawn = {name: torch.full_like(u_nb[0], float(value)) for name, value in STATE.items()}
    drawn |= dict(zip(("along_x", "along_y", "along_z"), u_nb[:3], strict=True))
    drawn |= dict(zip(("gap", "sway", "bearing", "yaw"), 2 * math.pi * u_nb[3:7], strict=True))
    state = State(**drawn | {"rising": u_nb[7] < 0.5, "clockwise": u_nb[7] % 0.5 < 0.25})

    def rows(action: str) -> np.ndarray:
        moved = perform(torch.full((700,), ACTIONS.index(action)), state, time_t)
        partner, post = moved.partner_bt3 - moved.actor_bt3, moved.post_bt3 - moved.actor_bt3
        facing = torch.stack([moved.yaw_bt.cos(), moved.yaw_bt.sin()], dim=2)
        return torch.cat([moved.actor_bt3, partner, post, facing], dim=2).flatten(1).numpy()

    stays_nf = rows("stays")
    for action in ACTIONS:
        for column, expected in zip(rows(action).T, stays_nf.T, strict=True):
            assert ks_distance(column, expected) < 1.95 * math.sqrt(2 / 700), action


def ks_distance(a: np.ndarray, b: np.ndarray) -> float:
    every = np.sort(np.concatenate([a, b]))
    # equal numbers computed two ways differ in the last bits: compare just above each of them
    below = [np.searchsorted(np.sort(x), every + 1e-9, side="right") / len(x) for x in (a, b)]
    return float(np.abs(below[0] - below[1]).max())


@pytest.mark.parametrize(
    ("action", "axis", "sign"),
    [
        ("moves_left", 0, -1),
        ("moves_right", 0, 1),
        ("moves_up", 1, 1),
        ("moves_down", 1, -1),
        ("moves_toward", 2, -1),
        ("moves_away", 2, 1),
    ],
)
def test_moving_goes_one_way_and_starts_over(action: str, axis: int, sign: int) -> None:
    step_t3 = motion(action).actor_bt3.diff(dim=0)
    assert (sign * step_t3[:, axis] > 0).sum() >= len(step_t3) - 1
    assert step_t3[:, [other for other in range(3) if other != axis]].abs().max() < 1e-12


def test_actions_do_what_their_names_say() -> None:
    bounce = motion("bounces").actor_bt3[:, 1]
    assert 0 <= bounce.min() < 0.1
    assert bounce.max() <= STATE["apex"]
    falling = bounce.diff().diff()[bounce[1:-1] > 0.15]
    torch.testing.assert_close(falling, falling[:1].expand(len(falling)), rtol=1e-6, atol=1e-9)
    collide = motion("collides")
    gap = (collide.partner_bt3 - collide.actor_bt3).norm(dim=1)
    assert gap.min() == pytest.approx(STATE["contact"], abs=0.03)
    assert gap.max() > STATE["contact"] + 0.3
    orbit = motion("orbits")
    radius = (orbit.partner_bt3 - orbit.actor_bt3).norm(dim=1)
    assert radius.std() < 1e-9
    assert (orbit.actor_bt3[0] - orbit.actor_bt3[50]).norm() > 0.5
    behind = motion("passes_behind")
    offset = (behind.actor_bt3 - behind.post_bt3)[:, 0]
    assert (offset.max() - offset.min()) > 0.8
    assert behind.post_bt3.std(dim=0).max() < 1e-12
    still = motion("stays")
    assert still.actor_bt3.std(dim=0).max() < 1e-12
    assert still.yaw_bt.std() < 1e-12
    left, right = (motion(name).yaw_bt.diff() for name in ("turns_left", "turns_right"))
    assert (left > 0).all()
    assert torch.allclose(left, -right)


def test_a_mirror_swaps_left_and_right_only() -> None:
    names = {ACTIONS[label]: ACTIONS[mirrored(label)] for label in range(len(ACTIONS))}
    changed = {name: other for name, other in names.items() if name != other}
    assert changed == {
        "moves_left": "moves_right",
        "moves_right": "moves_left",
        "turns_left": "turns_right",
        "turns_right": "turns_left",
    }


def brute_force_depth(scenes: Scenes, number: int, frame: int, u: float, v: float) -> float:
    """Walks along one ray until it is inside a body or outside the room."""
    eye, view = scenes.eye_bt3[number, frame].numpy(), scenes.view_bt33[number, frame].numpy()
    distance = np.arange(0.3, 12, 0.002)
    point_n3 = eye + distance[:, None] * (view @ np.array([u, v, 1.0]))

    def inside(bodies: Bodies, which: tuple[int, ...]) -> np.ndarray:
        offset_n3 = point_n3 - bodies.centre_t3[(*which, frame)].numpy()
        local_n3 = offset_n3 @ bodies.turn_t33[(*which, frame)].numpy() / bodies.half[which].numpy()
        return (local_n3**2).sum(1) < 1 if bodies.is_round[which] else np.abs(local_n3).max(1) < 1

    stop_n = ~inside(scenes.room, (number,))
    for slot in range(scenes.bodies.half.shape[1]):
        stop_n |= inside(scenes.bodies, (number, slot))
    return float(distance[stop_n.argmax()])


def test_depth_agrees_with_walking_along_the_rays() -> None:
    scenes = build_scenes(11, torch.arange(6), torch.tensor([-0.4, 0.3], dtype=torch.float64))
    height, width, differences = 20, 30, []
    depth_bthw = render(scenes, height, width)[1]
    for number in range(6):
        for frame in range(2):
            for y in range(1, height, 4):
                for x in range(1, width, 4):
                    u = (x + 0.5 - width / 2) * 2 * TAN_HALF_VIEW / height
                    v = -(y + 0.5 - height / 2) * 2 * TAN_HALF_VIEW / height
                    walked = brute_force_depth(scenes, number, frame, u, v)
                    differences.append(float(depth_bthw[number, frame, y, x]) - walked)
    # a ray that cuts off less of an edge than a step of the walk is the one thing that may differ
    assert sum(abs(difference) > 0.0025 for difference in differences) <= len(differences) / 200


def still_bodies(shape: tuple[int, ...], z: list[float], half: list[float], grey: list[float]) -> Bodies:
    """Bodies straight ahead that are not turned, of one colour each, `shape` of them; spheres where `z` is under 3."""
    zeros = torch.zeros(*shape, 3, dtype=torch.float64)
    each = [torch.tensor(values, dtype=torch.float64).reshape(shape) for values in (z, half, grey)]
    return Bodies(
        centre_t3=torch.stack([zeros[..., 0], zeros[..., 0], each[0]], dim=-1)[..., None, :],
        turn_t33=torch.eye(3, dtype=torch.float64).expand(*shape, 1, 3, 3),
        half=each[1][..., None].expand(*shape, 3),
        is_round=(each[0] > 0) & (each[0] < 3),
        texture=Texture(
            dark=each[2][..., None].expand(*shape, 3),
            bright=each[2][..., None].expand(*shape, 3),
            waves=zeros[..., None].expand(*shape, 3, 3),
            phases=zeros,
        ),
    )


def still_scene(z: list[float], half: list[float], grey: list[float]) -> Scenes:
    """One moment of such bodies, seen from the middle of a room of 12 m."""
    ahead_13 = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    return Scenes(
        label_b=torch.tensor([0]),
        eye_bt3=torch.zeros(1, 1, 3, dtype=torch.float64),
        view_bt33=torch.eye(3, dtype=torch.float64)[None, None],
        light_b3=ahead_13,
        room=still_bodies((1,), [0.0], [6.0], [0.5]),
        floor_dark_b3=torch.full_like(ahead_13, 0.5),
        floor_bright_b3=torch.full_like(ahead_13, 0.5),
        bodies=still_bodies((1, len(z)), z, half, grey),
    )


@pytest.mark.parametrize("turned_around", [False, True])
def test_the_nearer_body_hides_the_farther_one(turned_around: bool) -> None:
    order = [1, 0] if turned_around else [0, 1]
    z, half, grey = ([pair[i] for i in order] for pair in ([2.0, 4.0], [0.2, 0.8], [0.9, 0.1]))
    video_btchw, depth_bthw = render(still_scene(z, half, grey), 65, 65)
    red_hw, depth_hw = video_btchw[0, 0, 0].int(), depth_bthw[0, 0]
    assert float(depth_hw[32, 32]) == pytest.approx(1.8)
    assert float(depth_hw[32, 42]) == pytest.approx(3.2)
    assert float(depth_hw[32, 1]) == pytest.approx(6.0)
    assert red_hw[32, 32] > 2 * red_hw[32, 42]
    silhouette = (depth_hw[32] < 2).sum().item()
    assert silhouette == pytest.approx(2 * 65 / 2 * 0.2 / math.sqrt(4 - 0.04) / TAN_HALF_VIEW, abs=1.5)


@pytest.mark.parametrize(("z", "half", "seen"), [(0.5, 0.48, 1.0), (3.2, 3.19, 1.0), (-2.0, 0.5, 0.0), (4.0, 0.8, 0.2)])
def test_a_body_at_the_eye_fills_the_picture_and_one_behind_it_none(z: float, half: float, seen: float) -> None:
    depth_hw = render(still_scene([z], [half], [0.9]), 33, 33)[1][0, 0]
    shown = (depth_hw < 5.9).double().mean().item()
    assert shown == pytest.approx(seen, abs=0.01)


@given(
    st.lists(st.integers(0, 10_000), min_size=1, max_size=6),
    st.integers(1, 6),
    st.integers(1, 40),
    st.integers(1, 40),
)
@settings(max_examples=25, deadline=None)
def test_scenes_drawn_together_are_those_drawn_alone(indices: list[int], frames: int, height: int, width: int) -> None:
    shape = {"frames": frames, "height": height, "width": width}
    together = list(render_clips(6, indices, **shape))
    assert len(together) == len(indices)
    for index, clip in zip(indices, together, strict=True):
        alone = render_clip(6, index, **shape)
        assert torch.equal(clip.video_tchw, alone.video_tchw)
        assert torch.equal(clip.depth_thw, alone.depth_thw)
        assert clip.label == alone.label


def test_scenes_are_drawn_the_same_in_one_part_and_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(render_clips(0, range(7), frames=3, height=20, width=20))
    monkeypatch.setattr(synthetic, "_PIXELS_TOGETHER", 2 * 3 * 20 * 20)
    parts = list(render_clips(0, range(7), frames=3, height=20, width=20))
    for clip, other in zip(whole, parts, strict=True):
        assert torch.equal(clip.video_tchw, other.video_tchw)
        assert torch.equal(clip.depth_thw, other.depth_thw)


def test_a_clip_does_not_keep_the_memory_of_its_neighbours() -> None:
    clip = next(render_clips(0, range(7), frames=3, height=20, width=20))
    assert clip.video_tchw.untyped_storage().nbytes() == clip.video_tchw.numel()
    assert clip.depth_thw.untyped_storage().nbytes() == 4 * clip.depth_thw.numel()


def test_a_group_of_samples_is_its_samples() -> None:
    one, four = (SyntheticSource(clip=ClipConfig(frames=2, size=20, per_decode=n), seed=5, videos=9) for n in (1, 4))
    for number, sample in enumerate(four.samples(2)):
        alone = sample_of(one, 8 + number)
        assert torch.equal(sample.video_tchw, alone.video_tchw)
        assert (sample.index, sample.name, sample.crop) == (alone.index, alone.name, alone.crop)


def test_the_source_is_picklable_and_pure() -> None:
    source = SyntheticSource(clip=ClipConfig(frames=4, size=24), seed=5, videos=100, targets=("depth", "label"))
    assert isinstance(source, Source)
    assert len(source) == 100
    sample, again = sample_of(source, 42), sample_of(pickle.loads(pickle.dumps(source)), 42)
    assert torch.equal(sample.video_tchw, again.video_tchw)
    assert sample.targets["label"] == again.targets["label"]
    assert (sample.crop, sample.flip) == (again.crop, again.flip)
    side = source.clip.resize_side
    assert sample.video_tchw.shape == (4, 3, side, side)
    assert sample.video_tchw.dtype == torch.uint8
    assert sample.targets["depth"].shape == (4, side, side)
    assert torch.equal(sample_of(source, 142).video_tchw, sample.video_tchw)
    assert sample_of(SyntheticSource(clip=source.clip, seed=5), 42).targets == {}
    with pytest.raises(LayerlockError, match="no target speed; it has label and depth"):
        SyntheticSource(clip=source.clip, seed=5, targets=("speed",))


def test_crops_stay_inside_and_flips_keep_labels_true() -> None:
    source = SyntheticSource(clip=ClipConfig(frames=1, size=20), seed=5, targets=("label",))
    samples = [sample_of(source, index) for index in range(60)]
    room = source.clip.resize_side - 20
    assert {sample.crop[0] for sample in samples} == {sample.crop[1] for sample in samples} == set(range(room + 1))
    assert 15 < sum(sample.flip for sample in samples) < 45
    true_b = labels(5, torch.arange(60)).tolist()
    for sample, label in zip(samples, true_b, strict=True):
        assert sample.targets["label"] == (mirrored(label) if sample.flip else label)
    plain = SyntheticSource(clip=ClipConfig(frames=1, size=20, flip=False), seed=5)
    assert not any(sample_of(plain, index).flip for index in range(20))


WITHOUT = """
import sys
from importlib import metadata
sys.modules["av"] = None
found = metadata.version
def version(name):
    if name == "av":
        raise metadata.PackageNotFoundError(name)
    return found(name)
metadata.version = version
"""


def test_a_run_of_the_synthetic_world_needs_no_decoder(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)  # the workers read it too
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    small = "--steps 20 --batch 2 --clip.frames 4 --clip.size 16 --model.width 24 --model.mlp 24 --run.workers 1"
    done = subprocess.run(
        [sys.executable, "-m", "layerlock", "pretrain", "layerlock-tiny", *small.split(), "--out", "run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").exists()
