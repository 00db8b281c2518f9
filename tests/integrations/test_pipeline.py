"""A pipeline that samples by a plan gives the plan's samples, calls its network as often as it says, and forgets it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from headstart import Sampler, Schedule, guide
from headstart.errors import InputError
from headstart.initialization import Gaussian, Isotropic
from headstart.integrations.diffusers import from_diffusers
from headstart.integrations.pipeline import apply, seeds_of
from headstart.schedule import rho_grid
from headstart.solver import DPMSolverPP2M, Euler, Heun, UniPC
from tests.integrations.test_diffusers import text_unet, unet

pytestmark = pytest.mark.filterwarnings("ignore:num_inference_steps")

SHAPE = (1, 8, 8)
GRID = rho_grid(4, 12.0, 0.1)


def start():
    """A start that is not standard noise."""
    return Gaussian.fit(3 + torch.randn(200, *SHAPE, generator=torch.Generator().manual_seed(5)))


def plans():
    return [Sampler(start(), GRID, solver) for solver in (Euler(), Heun(), DPMSolverPP2M(eta=1), UniPC())]


def generator():
    return torch.Generator().manual_seed(7)


def counted(network):
    """The number of calls of a network, and of rows in them."""
    calls = []
    network.register_forward_hook(lambda *call: calls.append(call))
    return calls


def close(found, expected):
    torch.testing.assert_close(torch.as_tensor(found), expected.float(), atol=1e-4, rtol=1e-4)


def images(samples):
    """As the pipelines hand them out."""
    return (samples / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)


@pytest.mark.parametrize("sampler", plans(), ids=repr)
@pytest.mark.parametrize("kind", ["DDPM", "DDIM"])
def test_pixel_pipelines(diffusers, kind, sampler):
    network, scheduler = unet(diffusers), getattr(diffusers, f"{kind}Scheduler")()
    pipe = getattr(diffusers, f"{kind}Pipeline")(network, scheduler)
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        expected = sampler.sample(from_diffusers(pipe), seeds=seeds_of(generator(), 3))
    before = pipe(3, generator=generator(), num_inference_steps=2, output_type="np").images
    settled = pipe.scheduler
    calls = counted(network)
    applied = apply(sampler, pipe)
    for _ in range(2):
        close(pipe(3, generator=generator(), output_type="np").images, images(expected))
    assert len(calls) == 2 * sampler.nfe
    applied.undo()
    applied.undo()
    assert pipe.scheduler is settled
    assert type(pipe) is getattr(diffusers, f"{kind}Pipeline")
    after = pipe(3, generator=generator(), num_inference_steps=2, output_type="np").images
    assert (before == after).all()


def test_one_generator_a_sample(diffusers):
    sampler = plans()[2]
    pipe = diffusers.DDIMPipeline(unet(diffusers), diffusers.DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)

    def each():
        return [torch.Generator().manual_seed(seed) for seed in (3, 4)]

    with apply(sampler, pipe):
        found = pipe(2, generator=each(), output_type="np").images
    close(found, images(sampler.sample(from_diffusers(pipe), seeds=seeds_of(each(), 2))))


def guided_pipeline(diffusers):
    """A pipeline of the form of Stable Diffusion's: prompts as tensors, guidance by a doubled batch."""

    class Text(diffusers.DiffusionPipeline):
        def __init__(self, unet, scheduler):
            super().__init__()
            self.register_modules(unet=unet, scheduler=scheduler)

        @torch.no_grad()
        def __call__(
            self, prompts, empty, guidance_scale=5.0, num_inference_steps=50, generator=None, latents=None, eta=0.0
        ):
            self.scheduler.set_timesteps(num_inference_steps, device="cpu")
            if latents is None:
                latents = torch.randn(len(prompts), *SHAPE, generator=generator)
            latents = latents * self.scheduler.init_noise_sigma
            text = torch.cat([empty.expand_as(prompts), prompts])
            for t in self.scheduler.timesteps:
                seen = self.scheduler.scale_model_input(torch.cat([latents] * 2), t)
                plain, led = self.unet(seen, t, encoder_hidden_states=text).sample.chunk(2)
                out = plain + guidance_scale * (led - plain)
                latents = self.scheduler.step(out, t, latents, eta=eta, return_dict=False)[0]
            return SimpleNamespace(images=latents)

    return Text


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    "kind", ["EulerDiscreteScheduler", "PNDMScheduler", "EDMEulerScheduler", "FlowMatchEulerDiscreteScheduler"]
)
def test_text_and_guidance(diffusers, kind, prediction):
    options = {} if kind.startswith("FlowMatch") else {"prediction_type": prediction}
    pipe = guided_pipeline(diffusers)(text_unet(diffusers), getattr(diffusers, kind)(**options))
    text, empty = torch.randn(3, 5, 6, generator=generator()), torch.zeros(1, 5, 6)
    sampler = Sampler(start(), GRID, Heun())
    denoiser = guide(from_diffusers(pipe), 5.0, {"encoder_hidden_states": empty})
    expected = sampler.sample(denoiser, seeds=seeds_of(generator(), 3), encoder_hidden_states=text)
    calls = counted(pipe.unet)
    with apply(sampler, pipe):
        close(pipe(text, empty, generator=generator()).images, expected)
        assert len(calls) == sampler.nfe
        with pytest.raises(InputError, match="latents were given"):
            pipe(text, empty, latents=torch.zeros(3, *SHAPE))


def test_dit_with_classes(diffusers):
    """Whose states are doubled all the way, and whose network learned a variance too."""
    torch.manual_seed(0)
    network = diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=1,
        out_channels=2,
        num_layers=1,
        sample_size=8,
        norm_num_groups=1,
        num_embeds_ada_norm=1000,
    ).eval()
    vae = SimpleNamespace(config=SimpleNamespace(scaling_factor=1.0), decode=lambda z: SimpleNamespace(sample=z))

    class Pipe(diffusers.DiTPipeline):
        def __init__(self, transformer, scheduler):
            diffusers.DiffusionPipeline.__init__(self)
            self.register_modules(transformer=transformer, scheduler=scheduler)
            self.vae = vae

    pipe = Pipe(network, diffusers.DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    sampler = Sampler(start(), GRID, DPMSolverPP2M())
    labels, null = torch.tensor([3, 700]), torch.tensor([1000])
    denoiser = guide(from_diffusers(pipe), 4.0, {"label": null})
    expected = sampler.sample(denoiser, seeds=seeds_of(generator(), 2), label=labels)
    calls = counted(network)
    with apply(sampler, pipe):
        found = pipe(labels.tolist(), guidance_scale=4.0, generator=generator(), output_type="np").images
    close(found, images(expected))
    assert len(calls) == sampler.nfe


def test_a_number_of_steps_that_is_not_used_is_said(diffusers):
    pipe = diffusers.DDIMPipeline(unet(diffusers), diffusers.DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    with apply(plans()[1], pipe), pytest.warns(UserWarning, match="num_inference_steps=50 is not used: .* 7 eval"):
        pipe(num_inference_steps=50)


def test_what_does_not_go_together_is_refused(diffusers):
    pipe = diffusers.DDIMPipeline(unet(diffusers), diffusers.DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    sampler = plans()[0]
    with apply(sampler, pipe), pytest.raises(InputError, match="by a plan already"):
        apply(sampler, pipe)
    other = Sampler(Isotropic((3, 8, 8)), GRID, Euler())
    with apply(other, pipe), pytest.raises(InputError, match=r"\(3, 8, 8\), and the pipeline makes \(1, 8, 8\)"):
        pipe()
    high = Sampler(Isotropic(SHAPE), Schedule((500.0, 1.0, 0.0)), Euler())
    with pytest.raises(InputError, match="up to sigma = 157"):
        apply(high, pipe)
    assert isinstance(pipe.scheduler, diffusers.DDIMScheduler)

    class FromImage(diffusers.DDIMPipeline):
        def __call__(self, image, strength=0.8): ...

    with pytest.raises(InputError, match="noised image"):
        apply(sampler, FromImage(unet(diffusers), diffusers.DDIMScheduler()))
