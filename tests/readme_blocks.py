"""The online code blocks of the public API, as a user types them."""

from __future__ import annotations

SETTINGS = """
INIT_HP = {
    'ENV_NAME': 'LunarLander-v2',   # Gym environment name
    'ALGO': 'DQN',                  # Algorithm
    'DOUBLE': True,                 # Use double Q-learning
    'CHANNELS_LAST': False,         # Swap image channels dimension
    'BATCH_SIZE': 256,              # Batch size
    'LR': 1e-3,                     # Learning rate
    'EPISODES': 2000,               # Max no. episodes
    'TARGET_SCORE': 200.,           # Early training stop
    'GAMMA': 0.99,                  # Discount factor
    'MEMORY_SIZE': 10000,           # Max memory buffer size
    'LEARN_STEP': 1,                # Learning frequency
    'TAU': 1e-3,                    # For soft update of target parameters
    'TOURN_SIZE': 2,                # Tournament size
    'ELITISM': True,                # Elitism in tournament selection
    'POP_SIZE': 6,                  # Population size
    'EVO_EPOCHS': 20,               # Evolution frequency
    'POLICY_FREQ': 2,               # Policy network update frequency
    'WANDB': True                   # Log with Weights and Biases
}
MUTATION_PARAMS = {
    'NO_MUT': 0.4,                              # No mutation
    'ARCH_MUT': 0.2,                            # Architecture mutation
    'NEW_LAYER': 0.2,                           # New layer mutation
    'PARAMS_MUT': 0.2,                          # Network parameters mutation
    'ACT_MUT': 0,                               # Activation layer mutation
    'RL_HP_MUT': 0.2,                           # Learning HP mutation
    'RL_HP_SELECTION': ['lr', 'batch_size'],    # Learning HPs to choose from
    'MUT_SD': 0.1,                              # Mutation strength
    'RAND_SEED': 1,                             # Random seed
}
NET_CONFIG = {
    'arch': 'mlp',      # Network architecture
    'h_size': [32, 32], # Actor hidden size
}
"""

POPULATION = """
from agilerl.utils.utils import makeVectEnvs, initialPopulation
import torch

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

env = makeVectEnvs(env_name=INIT_HP['ENV_NAME'], num_envs=16)
try:
    state_dim = env.single_observation_space.n
    one_hot = True
except Exception:
    state_dim = env.single_observation_space.shape
    one_hot = False
try:
    action_dim = env.single_action_space.n
except Exception:
    action_dim = env.single_action_space.shape[0]

if INIT_HP['CHANNELS_LAST']:
    state_dim = (state_dim[2], state_dim[0], state_dim[1])

agent_pop = initialPopulation(algo=INIT_HP['ALGO'],
                              state_dim=state_dim,
                              action_dim=action_dim,
                              one_hot=one_hot,
                              net_config=NET_CONFIG,
                              INIT_HP=INIT_HP,
                              population_size=INIT_HP['POP_SIZE'],
                              device=torch.device("cuda"))
"""

EVOLUTION = """
from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.hpo.tournament import TournamentSelection
from agilerl.hpo.mutation import Mutations
import torch

field_names = ["state", "action", "reward", "next_state", "done"]
memory = ReplayBuffer(action_dim=action_dim,
                      memory_size=INIT_HP['MEMORY_SIZE'],
                      field_names=field_names,
                      device=torch.device("cuda"))

tournament = TournamentSelection(tournament_size=INIT_HP['TOURN_SIZE'],
                                 elitism=INIT_HP['ELITISM'],
                                 population_size=INIT_HP['POP_SIZE'],
                                 evo_step=INIT_HP['EVO_EPOCHS'])

mutations = Mutations(algo=INIT_HP['ALGO'],
                      no_mutation=MUTATION_PARAMS['NO_MUT'],
                      architecture=MUTATION_PARAMS['ARCH_MUT'],
                      new_layer_prob=MUTATION_PARAMS['NEW_LAYER'],
                      parameters=MUTATION_PARAMS['PARAMS_MUT'],
                      activation=MUTATION_PARAMS['ACT_MUT'],
                      rl_hp=MUTATION_PARAMS['RL_HP_MUT'],
                      rl_hp_selection=MUTATION_PARAMS['RL_HP_SELECTION'],
                      mutation_sd=MUTATION_PARAMS['MUT_SD'],
                      arch=NET_CONFIG['arch'],
                      rand_seed=MUTATION_PARAMS['RAND_SEED'],
                      device=torch.device("cuda"))
"""

TRAINING = """
from agilerl.training.train import train

trained_pop, pop_fitnesses = train(env=env,
                                   env_name=INIT_HP['ENV_NAME'],
                                   algo=INIT_HP['ALGO'],
                                   pop=agent_pop,
                                   memory=memory,
                                   swap_channels=INIT_HP['CHANNELS_LAST'],
                                   n_episodes=INIT_HP['EPISODES'],
                                   evo_epochs=INIT_HP['EVO_EPOCHS'],
                                   evo_loop=1,
                                   target=INIT_HP['TARGET_SCORE'],
                                   tournament=tournament,
                                   mutation=mutations,
                                   wb=INIT_HP['WANDB'])
"""

CUSTOM_LOOP = """
from agilerl.utils.utils import makeVectEnvs, initialPopulation
from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.hpo.tournament import TournamentSelection
from agilerl.hpo.mutation import Mutations
import gymnasium as gym
import numpy as np
import torch

NET_CONFIG = {
                'arch': 'mlp',       # Network architecture
                'h_size': [32, 32],  # Actor hidden size
             }

INIT_HP = {
            'DOUBLE': True,         # Use double Q-learning
            'BATCH_SIZE': 128,      # Batch size
            'LR': 1e-3,             # Learning rate
            'GAMMA': 0.99,          # Discount factor
            'LEARN_STEP': 1,        # Learning frequency
            'TAU': 1e-3,            # For soft update of target network parameters
            'CHANNELS_LAST': False  # Swap image channels dimension
          }

env = makeVectEnvs('LunarLander-v2', num_envs=16)   # Create environment

try:
    state_dim = env.single_observation_space.n
    one_hot = True
except Exception:
    state_dim = env.single_observation_space.shape
    one_hot = False
try:
    action_dim = env.single_action_space.n
except Exception:
    action_dim = env.single_action_space.shape[0]

if INIT_HP['CHANNELS_LAST']:
    state_dim = (state_dim[2], state_dim[0], state_dim[1])

pop = initialPopulation(algo='DQN',
                        state_dim=state_dim,
                        action_dim=action_dim,
                        one_hot=False,
                        net_config=NET_CONFIG,
                        INIT_HP=INIT_HP,
                        population_size=6,
                        device=torch.device("cuda"))

field_names = ["state", "action", "reward", "next_state", "done"]
memory = ReplayBuffer(action_dim=action_dim,
                      memory_size=10000,
                      field_names=field_names,
                      device=torch.device("cuda"))

tournament = TournamentSelection(tournament_size=2,
                                 elitism=True,
                                 population_size=6,
                                 evo_step=1)

mutations = Mutations(algo='DQN',
                      no_mutation=0.4,
                      architecture=0.2,
                      new_layer_prob=0.2,
                      parameters=0.2,
                      activation=0,
                      rl_hp=0.2,
                      rl_hp_selection=['lr', 'batch_size'],
                      mutation_sd=0.1,
                      arch=NET_CONFIG['arch'],
                      rand_seed=1,
                      device=torch.device("cuda"))
"""

LOOP = """
max_episodes = 1000 # Max training episodes
max_steps = 500     # Max steps per episode

# Exploration params
eps_start = 1.0     # Max exploration
eps_end = 0.1       # Min exploration
eps_decay = 0.995   # Decay per episode
epsilon = eps_start

evo_epochs = 5      # Evolution frequency
evo_loop = 1        # Number of evaluation episodes

# TRAINING LOOP
for idx_epi in range(max_episodes):
    for agent in pop:   # Loop through population
        state = env.reset()[0]  # Reset environment at start of episode
        score = 0
        for idx_step in range(max_steps):
            if INIT_HP['CHANNELS_LAST']:
                state = np.moveaxis(state, [3], [1])
            action = agent.getAction(state, epsilon)    # Get next action from agent
            next_state, reward, done, _, _ = env.step(action)   # Act in environment

            # Save experience to replay buffer
            if INIT_HP['CHANNELS_LAST']:
                memory.save2memoryVectEnvs(
                    state, action, reward, np.moveaxis(next_state, [3], [1]), done)
            else:
                memory.save2memoryVectEnvs(
                    state, action, reward, next_state, done)

            # Learn according to learning frequency
            if memory.counter % agent.learn_step == 0 and len(memory) >= agent.batch_size:
                experiences = memory.sample(agent.batch_size) # Sample replay buffer
                agent.learn(experiences)    # Learn according to agent's RL algorithm

            state = next_state
            score += reward

    epsilon = max(eps_end, epsilon*eps_decay) # Update epsilon for exploration

    # Now evolve population if necessary
    if (idx_epi+1) % evo_epochs == 0:

        # Evaluate population
        fitnesses = [agent.test(env, swap_channels=INIT_HP['CHANNELS_LAST'], max_steps=max_steps, loop=evo_loop) for agent in pop]

        print(f'Episode {idx_epi+1}/{max_episodes}')
        print(f'Fitnesses: {["%.2f"%fitness for fitness in fitnesses]}')
        print(f'100 fitness avgs: {["%.2f"%np.mean(agent.fitness[-100:]) for agent in pop]}')

        # Tournament selection and population mutation
        elite, pop = tournament.select(pop)
        pop = mutations.mutation(pop)
"""  # noqa: E501
