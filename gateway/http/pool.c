/* The threads that run the handler, and the bounded queue before them. */
#include <stdio.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/thread.h"
#include "gateway/http/internal.h"

/* NULL when the pool closes. */
static struct kx_exchange *take(struct kx_pool *pool)
{
	struct kx_exchange *exchange;

	pthread_mutex_lock(&pool->lock);
	while (pool->first == NULL && !pool->closing)
		pthread_cond_wait(&pool->work, &pool->lock);
	exchange = pool->first;
	if (exchange != NULL) {
		pool->first = exchange->next;
		pool->last = pool->first != NULL ? pool->last : NULL;
		pool->waiting--;
		pool->running++;
	}
	pthread_mutex_unlock(&pool->lock);
	return exchange;
}

static void run(struct kx_http_server *server, struct kx_exchange *exchange, bool closing)
{
	const struct kx_http_handler *handler = &server->options.handler;

	if (closing)
		handler->refuse(handler->ctx, 503, "the server is stopping", &exchange->response);
	else if (kx_clock_mono_us() >= exchange->request.deadline_us)
		handler->refuse(handler->ctx, 503, "the server is busy: the request waited until its time was over",
				&exchange->response);
	else
		handler->handle(handler->ctx, &exchange->request, &exchange->response);
	exchange->answered = true;
	MHD_resume_connection(exchange->connection);
}

static void *work(void *arg)
{
	struct kx_http_server *server = arg;
	struct kx_pool *pool = &server->pool;

	for (struct kx_exchange *exchange; (exchange = take(pool)) != NULL;) {
		pthread_mutex_lock(&pool->lock);
		bool closing = pool->closing;
		pthread_mutex_unlock(&pool->lock);
		run(server, exchange, closing);
		pthread_mutex_lock(&pool->lock);
		pool->running--;
		pthread_mutex_unlock(&pool->lock);
	}
	return NULL;
}

kx_status kx_pool_start(struct kx_http_server *server, struct kx_error *error)
{
	struct kx_pool *pool = &server->pool;
	kx_status status = KX_OK;

	pool->threads = calloc(server->options.threads, sizeof(*pool->threads));
	if (pool->threads == NULL)
		return kx_error_nomem(error);
	for (unsigned i = 0; i < server->options.threads && status == KX_OK; i++) {
		char name[16];

		snprintf(name, sizeof(name), "http-%u", i % 1000);
		status = kx_thread_start(&pool->threads[i], name, work, server, error);
		pool->thread_count += status == KX_OK;
	}
	return status;
}

bool kx_pool_submit(struct kx_http_server *server, struct kx_exchange *exchange)
{
	struct kx_pool *pool = &server->pool;

	pthread_mutex_lock(&pool->lock);
	bool room = !pool->closing && (pool->waiting < server->options.queue_max ||
				       pool->waiting + pool->running < pool->thread_count);
	if (room) {
		MHD_suspend_connection(exchange->connection); /* before a thread could resume it */
		exchange->next = NULL;
		if (pool->last != NULL)
			pool->last->next = exchange;
		else
			pool->first = exchange;
		pool->last = exchange;
		pool->waiting++;
		pthread_cond_signal(&pool->work);
	}
	pthread_mutex_unlock(&pool->lock);
	return room;
}

void kx_pool_close(struct kx_http_server *server)
{
	struct kx_pool *pool = &server->pool;

	pthread_mutex_lock(&pool->lock);
	pool->closing = true;
	pthread_cond_broadcast(&pool->work);
	pthread_mutex_unlock(&pool->lock);
}

void kx_pool_join(struct kx_http_server *server)
{
	struct kx_pool *pool = &server->pool;

	for (unsigned i = 0; i < pool->thread_count; i++)
		pthread_join(pool->threads[i], NULL);
	free(pool->threads);
	pool->threads = NULL;
	pool->thread_count = 0;
}
