"""LangChain's standard suites with its packages for OpenAI, Ollama and Anthropic, against a server whose model is the parrot.

    AIRRUN_URL=http://127.0.0.1:11435 AIRRUN_KEY=KEY python -m pytest langchain_suites.py
"""

import os

from langchain_anthropic import ChatAnthropic
from langchain_ollama import ChatOllama, OllamaEmbeddings
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests

URL, KEY = os.environ["AIRRUN_URL"], os.environ["AIRRUN_KEY"]
AUTH = {"headers": {"Authorization": f"Bearer {KEY}"}}


class TestOpenAI(ChatModelIntegrationTests):
    chat_model_class = ChatOpenAI
    supports_json_mode = True
    # The client asks for no usage while streaming when it is given a URL.
    chat_model_params = {
        "model": "parrot", "base_url": f"{URL}/v1", "api_key": KEY, "seed": 1, "stream_usage": True, "max_retries": 0,
    }


class TestOpenAIResponses(ChatModelIntegrationTests):
    chat_model_class = ChatOpenAI
    chat_model_params = {
        "model": "parrot", "base_url": f"{URL}/v1", "api_key": KEY, "use_responses_api": True, "max_retries": 0,
    }


class TestOllama(ChatModelIntegrationTests):
    chat_model_class = ChatOllama
    supports_json_mode = True
    # The protocol has no choice of tools.
    has_tool_choice = False
    chat_model_params = {"model": "parrot", "base_url": URL, "client_kwargs": AUTH, "seed": 1}


class TestAnthropic(ChatModelIntegrationTests):
    chat_model_class = ChatAnthropic
    chat_model_params = {
        "model": "parrot", "base_url": URL, "api_key": KEY, "max_tokens": 256, "max_retries": 0,
    }
    supports_anthropic_inputs = True


class TestOpenAIVectors(EmbeddingsIntegrationTests):
    embeddings_class = OpenAIEmbeddings
    # Else it fetches a tokenizer of OpenAI's.
    embedding_model_params = {
        "model": "parrot", "base_url": f"{URL}/v1", "api_key": KEY, "check_embedding_ctx_length": False,
    }


class TestOllamaVectors(EmbeddingsIntegrationTests):
    embeddings_class = OllamaEmbeddings
    embedding_model_params = {"model": "parrot", "base_url": URL, "client_kwargs": AUTH}
